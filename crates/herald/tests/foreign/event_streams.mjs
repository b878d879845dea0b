// Reads event streams with a browser's EventSource, and with a parser that shows what a browser keeps to itself.
//
// Arguments: the base URL, the names of streams and the types of events to listen for, both as JSON. The stream N is at /N,
// and at /N?slowly a byte at a time. Prints for each its events (type, data, last id) in both, and its retries and comments.

import process from "node:process";
import { launch, require } from "./browser.mjs";

const { createParser } = require("eventsource-parser");

// A browser opens no more connections to one server.
const AT_ONCE = 6;

const [base, namesText, typesText] = process.argv.slice(2);
const [names, types] = [JSON.parse(namesText), JSON.parse(typesText)];

// Runs in the page.
function read({ url, types }) {
  return new Promise((resolve) => {
    const events = [];
    const source = new EventSource(url);
    for (const type of types) {
      source.addEventListener(type, (event) => {
        if (event instanceof MessageEvent) events.push([event.type, event.data, event.lastEventId]);
      });
    }
    source.addEventListener("error", (event) => {
      // An event of the stream may be called so, too.
      if (event instanceof MessageEvent) return;
      source.close();
      resolve(events);
    });
  });
}

async function parse(url) {
  const items = [];
  const parser = createParser({
    onRetry: (millis) => items.push(`retry ${millis}`),
    onComment: (text) => items.push(`comment ${text}`),
  });
  const decoder = new TextDecoder();
  for await (const piece of (await fetch(url)).body) {
    parser.feed(decoder.decode(piece, { stream: true }));
  }
  return items;
}

const browser = await launch();
try {
  const page = await browser.newPage();
  await page.goto(base);
  const shown = {};
  const left = [...names];
  const worker = async () => {
    for (let name = left.shift(); name !== undefined; name = left.shift()) {
      const url = `${base}/${name}`;
      const events = await page.evaluate(read, { url, types });
      const slowly = await page.evaluate(read, { url: `${url}?slowly`, types });
      shown[name] = { events, slowly, items: await parse(url) };
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  console.log(JSON.stringify(shown));
} finally {
  await browser.close();
}
