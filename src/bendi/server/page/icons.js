// The page's own icons: strokes on a grid of 24, in the colour of the text around them.

import { svg } from "./dom.js";

const PATHS = {
  attach: "M20 11.5 12.3 19a5 5 0 0 1-7.1-7.1l7.9-7.8a3.3 3.3 0 0 1 4.7 4.7l-7.9 7.8a1.7 1.7 0 0 1-2.4-2.4l7.3-7.1",
  branch: "M7 4v16M7 14c6 0 10-1 10-6M7 4l-2 2M7 4l2 2M17 8l-2-1M17 8l1.500-1.800M17 8V6",
  check: "m5 12.500 4.500 4.500L19 7.500",
  chevron: "m8 10 4 4 4-4",
  close: "M6.500 6.500l11 11M17.500 6.500l-11 11",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  download: "M12 4v11M7.500 11l4.500 4.500 4.500-4.500M5 20h14",
  edit: "M5 19l.8-3.600L16 5.200a1.900 1.900 0 0 1 2.700 2.700L8.500 18.200zM14.500 6.800l2.700 2.700",
  file: "M6 3.500h8l4 4V20.500H6zM14 3.500v4h4M9 12.500h6M9 16h6",
  gauge: "M4.500 17a8.500 8.500 0 1 1 15 0M12 14.500l3.500-5M12 16a1.500 1.500 0 1 0 0-3 1.500 1.500 0 0 0 0 3",
  image: "M4 5h16v14H4zM4 16l4.500-4.500 4 4 2.500-2.500 5 5M15 9.500h.01",
  info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M12 11v5M12 7.800h.01",
  key: "M14.500 13a4.500 4.500 0 1 0-4.200-3L4 16.300V20h3.500v-2.500H10V15l1.500-1.500M15.800 8.200h.01",
  language: "M4 6h9M8.500 4v2M11 6c-.8 4-3.300 7-6.500 8.500M6 9.500c1.200 2.300 3 4 5.500 5M12.500 20l4-9.500 4 9.500M14 17h5",
  menu: "M4 7h16M4 12h16M4 17h16",
  model: "M12 3.500 20 8v8l-8 4.500L4 16V8zM4 8l8 4.500L20 8M12 12.500v8",
  moon: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  persona: "M12 12.500a4 4 0 1 0 0-8 4 4 0 0 0 0 8M4.500 20c1-3.500 4-5 7.500-5s6.500 1.500 7.500 5",
  pin: "M9 4h6l-1 6 3 3.500H7L10 10zM12 13.500V20",
  plus: "M12 5v14M5 12h14",
  retry: "M19 12a7 7 0 1 1-2.200-5.100M19 4v4h-4",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14M16 16l4.500 4.500",
  send: "M12 19.500V5M6 11l6-6 6 6",
  stop: "M7.500 7.500h9v9h-9z",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8M12 3v1.500M12 19.500V21M3 12h1.500M19.500 12H21M5.600 5.600l1.100 1.100M17.300 17.300l1.100 1.100M5.600 18.400l1.100-1.100M17.300 6.700l1.100-1.100",
  trash: "M5 7h14M10 7V4.500h4V7M7 7l.8 13h8.400L17 7M10.300 10.500v6M13.700 10.500v6",
  warn: "M12 4 21 19.500H3zM12 10v4.500M12 17.200h.01",
};

/** An icon that screen readers pass over: the button around it has the name. */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: PATHS[name], class: name === "stop" ? "solid" : null }),
  );
}
