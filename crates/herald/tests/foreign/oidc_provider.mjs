// An issuer: npm's oidc-provider, with keys of its own (RS256) and one client that signs assertions.
//
// Arguments: the client's id, the file of its private JWK, its scopes, the audience and the lifetime of its tokens in
// seconds, and more of their claims as JSON. Prints where it is, then a line for each token and each refusal; ends when
// its stdin does.

import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import process from "node:process";

import { algorithmOf, endWithin, jose, load } from "./tokens.mjs";

endWithin(120);
const { default: Provider } = await load("oidc-provider");

const [id, keyFile, scope, audience, lifetime, claims] = process.argv.slice(2);
const { d, p, q, dp, dq, qi, oth, ...publicKey } = JSON.parse(await readFile(keyFile, "utf8"));
const signing = await jose.generateKeyPair("RS256", { extractable: true });

const server = createServer();
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const provider = new Provider(`http://127.0.0.1:${server.address().port}`, {
  jwks: { keys: [{ ...(await jose.exportJWK(signing.privateKey)), alg: "RS256", use: "sig" }] },
  clients: [
    {
      client_id: id,
      grant_types: ["client_credentials"],
      response_types: [],
      redirect_uris: [],
      scope,
      token_endpoint_auth_method: "private_key_jwt",
      token_endpoint_auth_signing_alg: algorithmOf(publicKey),
      jwks: { keys: [publicKey] },
      dpop_bound_access_tokens: true,
    },
  ],
  scopes: scope.split(" "),
  extraTokenClaims: () => JSON.parse(claims),
  ttl: { ClientCredentials: Number(lifetime) },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
    // Its tokens are JWTs when they are for a resource, and clients of HelseID name none.
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:example:notifications",
      getResourceServerInfo: () => ({ scope, audience, accessTokenFormat: "jwt" }),
    },
  },
});
provider.on("grant.success", (ctx) => console.log("granted", ctx.oidc.params.scope));
provider.on("grant.error", (_, error) => console.log("refused", error.error));
provider.on("server_error", (_, error) => console.error(error));
server.on("request", provider.callback());
console.log(provider.issuer);

process.stdin.on("end", () => process.exit(0)).resume();
