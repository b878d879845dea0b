// Asks an issuer for tokens as several clients and with several kinds of proof, and verifies each; prints them as lines.
//
// Arguments: the issuer, then for each client its id, the file of its private JWK, and what signs its assertions.

import process from "node:process";

import { clientOf, discover, oauth, proofs, token, verified } from "./tokens.mjs";

const [issuer, ...clients] = process.argv.slice(2);
const server = await discover(issuer);
const other = await discover(issuer, "oauth2");
if (JSON.stringify(server) !== JSON.stringify(other)) throw new Error("two configurations");

const kinds = server.dpop_signing_alg_values_supported;
for (let at = 0; at < clients.length; at += 3) {
  const client = await clientOf(clients[at], clients[at + 1], clients[at + 2]);
  const prover = await proofs(kinds[(at / 3) % kinds.length]);
  for (const round of ["first", "second"]) {
    const { granted, nonces } = await token(server, client, prover);
    const { header, claims } = await verified(server, granted.access_token, "nhn:msh");
    const { expires_in, scope, token_type } = granted;
    const { thumbprint } = prover;
    console.log(JSON.stringify({ round, nonces, header, claims, expires_in, scope, token_type, thumbprint }));
  }
}

// A refusal is read as one, too.
const client = await clientOf(...clients.slice(0, 3));
try {
  await token(server, client, await proofs("ES256"), { scope: "openid" });
  throw new Error("a scope that the client may not ask for was granted");
} catch (error) {
  if (!(error instanceof oauth.ResponseBodyError)) throw error;
  console.log(JSON.stringify({ refused: error.error, description: error.error_description }));
}
