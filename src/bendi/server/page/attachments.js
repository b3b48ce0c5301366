// Files in a question. A text file goes in whole, in a fence that nothing in it can close; nothing is ever cut. An image
// goes beside the text, as it is where engines read its kind, else drawn anew.

import { state } from "./state.js";

const LARGEST_BYTES = 4 * 1024 * 1024;
// What the server takes, see images.py.
const LARGEST_IMAGE_BYTES = 10 * 1024 * 1024;
const MOST_PIXELS = 50_000_000;
const READ_BY_ENGINES = ["image/png", "image/jpeg", "image/gif", "image/bmp"];
const OPENING = /\n\n\[file: ([^\n]*)\]\n(`{3,})[^\n]*\n/g;

/** Reads `file`: `{name, text}`, or `{problem}`, the key of a text that says why not. */
export async function readTextFile(file) {
  if (file.size > LARGEST_BYTES) return { problem: "fileTooLarge" };
  const bytes = new Uint8Array(await file.arrayBuffer());
  const encodings = bytes[0] === 0xff && bytes[1] === 0xfe ? ["utf-16le"] : ["utf-8", "gb18030"];
  for (const encoding of encodings) {
    try {
      const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
      if (text.includes("\0")) break;
      return { name: file.name.replace(/[\r\n\]]/g, " "), text: text.replace(/\r\n?/g, "\n"), bytes: file.size };
    } catch {
      // Not in this encoding.
    }
  }
  return { problem: "fileNotText" };
}

/** Reads an image: `{name, image, bytes, width, height}`, `image` a `data:` URI; or `{problem}`, as above. */
export async function readImageFile(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return { problem: "imageUnreadable" };
  }
  try {
    const { width, height } = picture;
    if (width < 2 || height < 2) return { problem: "imageUnreadable" };
    const fits = file.size <= LARGEST_IMAGE_BYTES && width * height <= MOST_PIXELS;
    const blob = fits && READ_BY_ENGINES.includes(file.type) ? file : await redrawn(picture);
    if (!blob || blob.size > LARGEST_IMAGE_BYTES) return { problem: "imageTooLarge" };
    return { name: file.name, image: await dataUri(blob), bytes: blob.size, width, height };
  } finally {
    picture.close();
  }
}

/** As JPEG, and smaller where it has too many pixels. */
async function redrawn(picture) {
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (picture.width * picture.height)) * 0.99);
  const canvas = new OffscreenCanvas(Math.floor(picture.width * scale), Math.floor(picture.height * scale));
  const context = canvas.getContext("2d");
  if (!context) return null;
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

export function dataUri(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result));
    reader.addEventListener("error", () => failed(reader.error));
    reader.readAsDataURL(blob);
  });
}

/** What is sent: the text, and the files after it. */
export function withFiles(text, files) {
  return text + files.map((file) => fileBlock(file)).join("");
}

function fileBlock({ name, text }) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `\n\n[file: ${name}]\n${fence}\n${text}${text.endsWith("\n") ? "" : "\n"}${fence}`;
}

/** The other way round: `{text, files: [{name, text}]}`. */
export function partsOf(content) {
  const files = [];
  let text = content;
  OPENING.lastIndex = 0;
  let found = OPENING.exec(content);
  if (found) text = content.slice(0, found.index);
  while (found) {
    const [whole, name, fence] = found;
    const from = found.index + whole.length;
    const end = content.indexOf(`\n${fence}`, from - 1);
    if (end < 0) return { text: content, files: [] };
    files.push({ name, text: content.slice(from, end + 1) });
    OPENING.lastIndex = end + 1 + fence.length;
    const next = OPENING.exec(content);
    if (next && next.index !== end + 1 + fence.length) return { text: content, files: [] };
    if (!next && end + 1 + fence.length !== content.length) return { text: content, files: [] };
    found = next;
  }
  return { text, files };
}

/** More tokens than any tokenizer makes of ordinary text: a third of the ASCII characters, and all others. */
export function estimateTokens(text) {
  let ascii = 0;
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) < 128) ascii++;
  return Math.floor(ascii / 3) + (text.length - ascii) + 1;
}

/** The context of the model in use, in tokens; null where it is not loaded and was never heard of. */
export function contextTokens() {
  const model = state.session?.model ?? state.model;
  const loaded = state.loaded?.models?.find((entry) => entry.model === model && entry.state === "ready");
  return loaded?.context_tok ?? state.context?.available_tok ?? null;
}

export function isLoaded(model) {
  return Boolean(state.loaded?.models?.some((entry) => entry.model === model && entry.state === "ready"));
}
