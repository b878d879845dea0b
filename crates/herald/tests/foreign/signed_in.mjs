// Appends, polls, asks for what is another's, and repeats a proof, signed in with oauth4webapi; prints the answers as
// one line for each algorithm of proofs.
//
// Arguments: the issuer, the API, the client's id, the file of its private JWK, the scopes, a HER-id of its own and one
// of another organisation, and the algorithms.

import process from "node:process";

import { SignedIn, address, append, clientOf, discover, endWithin, oauth, proofs } from "./tokens.mjs";

endWithin(60);
const [issuer, base, id, keyFile, scope, own, others, ...algorithms] = process.argv.slice(2);
const server = await discover(issuer);
const client = await clientOf(id, keyFile);

const told = async (answer) => ({ status: answer.status, body: await answer.json() });

for (const algorithm of algorithms) {
  const api = new SignedIn(server, client, await proofs(algorithm), { scope });
  const appended = await told(await append(api, base, Number(own)));
  const page = address(base, "/notifications", [own], { Offset: 0 });
  let sent;
  const noted = (url, init) => {
    sent = init.headers;
    return fetch(url, init);
  };
  const polled = await told(await api.call("GET", page, { [oauth.customFetch]: noted }));
  const both = address(base, "/notifications", [own, others], { Offset: 0 });
  const refused = await told(await api.call("GET", both));

  // The very call again, with the proof that was good before.
  const again = (url, init) => fetch(url, { ...init, headers: sent });
  const replayed = await api.call("GET", page, { [oauth.customFetch]: again }).then(
    () => ({ status: 200 }),
    async (error) => {
      if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error;
      return { ...(await told(error.response)), challenges: error.cause };
    },
  );
  console.log(JSON.stringify({ algorithm, appended, polled, refused, replayed }));
}
