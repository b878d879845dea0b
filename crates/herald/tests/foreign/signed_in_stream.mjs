// Streams with npm's eventsource, signed in with oauth4webapi, for as many connections as it is told; prints what it is
// given as lines. The stream ends with its token, and each time it connects it has a new proof.
//
// Arguments: the issuer, the API, the client's id, the file of its private JWK, the scopes, a HER-id of its own, the
// algorithm of proofs, and the number of connections.

import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";

import { SignedIn, address, append, clientOf, discover, endWithin, proofs } from "./tokens.mjs";

const require = createRequire(join(process.env.HERALD_TOOLS, "node", "package.json"));
const { EventSource } = require("eventsource");

endWithin(60);
const [issuer, base, id, keyFile, scope, own, algorithm, enough] = process.argv.slice(2);
const server = await discover(issuer);
const client = await clientOf(id, keyFile);
const signedIn = async () => new SignedIn(server, client, await proofs(algorithm), { scope });
const [reader, producer] = [await signedIn(), await signedIn()];

function failed(...words) {
  console.error(...words);
  process.exit(1);
}

async function appendOne() {
  const answer = await append(producer, base, Number(own));
  if (answer.status !== 201) failed("appending:", answer.status, await answer.text());
  const { notifications } = await answer.json();
  console.log("appended", notifications[0].offset);
}

let connections = 0;
const url = address(base, "/notifications/stream", [own], { Offset: 0 });
const source = new EventSource(url, {
  fetch: (input, { headers, signal }) => reader.call("GET", input, { headers, signal }),
});
source.addEventListener("connected", () => {
  connections += 1;
  console.log("connected", reader.tokens);
});
source.addEventListener("notification", (event) => {
  console.log("streamed", event.lastEventId, event.data);
  if (connections >= Number(enough)) return source.close();
  // Always one under way, whenever the stream ends.
  appendOne().catch((error) => failed("appending:", error));
});
source.addEventListener("error", (event) => {
  // Ended as it should: it is connecting again by itself.
  const isEnded = source.readyState === EventSource.CONNECTING && event.code === undefined;
  if (!isEnded || event.message !== undefined) failed("the stream broke:", event.code, event.message);
});
await appendOne();
