// Many plain EventSources in one process, which come back by themselves; prints a line for each thing that one of them says.
//
// Arguments: the base URL, and for each EventSource its HER-ids, joined by commas. Ends when its stdin does.

import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";

const require = createRequire(join(process.env.HERALD_TOOLS, "node", "package.json"));
const { EventSource } = require("eventsource");

const [base, ...readers] = process.argv.slice(2);
const headers = { "api-version": "3", "nhn-source-system": "eventsource/1" };

readers.forEach((herIds, reader) => {
  const query = new URLSearchParams({ Offset: 0 });
  for (const herId of herIds.split(",")) query.append("HerIds", herId);
  const source = new EventSource(`${base}/notifications/stream?${query}`, {
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
  });
  source.addEventListener("connected", () => console.log(reader, "connected"));
  source.addEventListener("notification", (event) => {
    console.log(reader, "notification", event.lastEventId, event.data);
  });
  source.addEventListener("error", (event) => {
    // One that has given up does not come back, whatever it waits for.
    const word = source.readyState === EventSource.CLOSED ? "gave-up" : "waits";
    console.log(reader, word, event.code, event.message);
  });
});

// Whoever reads the lines looks with each of them whether it has seen enough.
process.stdout.on("error", () => process.exit(0));
setInterval(() => console.log("tick"), 200);
process.stdin.on("end", () => process.exit(0)).resume();
