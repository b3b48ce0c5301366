// Times the prebuilt llama.cpp of node-llama-cpp: JSON lines in, JSON lines out (outside.py).
//
//     node ask_node_llama_cpp.mjs FOLDER     FOLDER: where `npm install` put node_modules
//
// The npm package @node-llama-cpp/linux-x64 holds a Node.js addon and ggml's CPU libraries, one for each generation of
// CPUs, of which it takes the best that runs here; no program that could be timed by itself. Its defaults, but for the
// number of threads, which it would take to be four at least.

import path from "node:path";
import readline from "node:readline";
import {pathToFileURL} from "node:url";

const lines = readline.createInterface({input: process.stdin})[Symbol.asyncIterator]();
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

async function hear() {
    const {value, done} = await lines.next();
    return done ? null : JSON.parse(value);
}

async function ask(sequence, {past, prompt, answer_tok: answerTok}) {
    await sequence.adaptStateToTokens(past, false);
    const missing = past.slice(sequence.nextTokenIndex);
    if (missing.length > 0) await sequence.evaluateWithoutGeneratingNewTokens(missing);
    const started = performance.now();
    let first = started, count = 0;
    for await (const _token of sequence.evaluate(prompt, {yieldEogToken: true})) {
        count += 1;
        if (count === 1) first = performance.now();
        if (count === answerTok) break;
    }
    const rates = {pp_tok_s: 1000 * prompt.length / (first - started), computed_tok: prompt.length};
    if (count > 1) rates.tg_tok_s = 1000 * (count - 1) / (performance.now() - first);
    return rates;
}

const folder = path.resolve(process.argv[2], "node_modules", "node-llama-cpp", "dist", "index.js");
const {getLlama} = await import(pathToFileURL(folder).href);
const given = await hear();
const llama = await getLlama({
    gpu: false, build: "never", skipDownload: true, progressLogs: false, logLevel: "error", maxThreads: given.threads
});
const model = await llama.loadModel({modelPath: given.model});
const context = await model.createContext({contextSize: given.context_tok, threads: given.threads});
const sequence = context.getSequence();
say({ready: `node-llama-cpp prebuilt (llama.cpp ${llama.llamaCppRelease.release})`});
for (let request = await hear(); request != null; request = await hear()) say(await ask(sequence, request));
process.exit(0);
