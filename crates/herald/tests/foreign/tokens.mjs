// Tokens as a client gets them with npm's oauth4webapi, and as an API verifies them with npm's jose.
//
// Pieces for other scripts; none of it knows Herald.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.HERALD_TOOLS, "node", "package.json"));
export const load = (name) => import(pathToFileURL(require.resolve(name)).href);

export const oauth = await load("oauth4webapi");
export const jose = await load("jose");

/** The longest that a script may take, whatever it waits for. */
export function endWithin(seconds) {
  const end = () => {
    console.error(`it took more than ${seconds} s`);
    process.exit(1);
  };
  setTimeout(end, seconds * 1_000).unref();
}

// The issuer is on loopback and speaks plain HTTP.
export const insecure = { [oauth.allowInsecureRequests]: true };

/** What an issuer says of itself, by either of the two standards ("oidc" or "oauth2"). */
export async function discover(issuer, algorithm = "oidc") {
  const url = new URL(issuer);
  const response = await oauth.discoveryRequest(url, { algorithm, ...insecure });
  return oauth.processDiscoveryResponse(url, response);
}

/** Which algorithm a JWK is for. */
export function algorithmOf(jwk) {
  return jwk.alg ?? { RSA: "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512" }[jwk.crv ?? jwk.kty];
}

/** A client with the private JWK in a file, which signs its assertions with `algorithm`. */
export async function clientOf(id, keyFile, algorithm) {
  const jwk = JSON.parse(await readFile(keyFile, "utf8"));
  const alg = algorithm ?? algorithmOf(jwk);
  const key = await jose.importJWK({ ...jwk, alg }, alg);
  return { client: { client_id: id }, authentication: oauth.PrivateKeyJwt({ key, kid: jwk.kid }) };
}

/** Keys for proofs, with their thumbprint; and what remembers the nonces of servers. */
export async function proofs(algorithm) {
  const pair = await oauth.generateKeyPair(algorithm, { extractable: true });
  const thumbprint = await jose.calculateJwkThumbprint(await jose.exportJWK(pair.publicKey));
  return { handle: oauth.DPoP({}, pair), thumbprint };
}

/** A token, and how often a nonce was asked for on the way. */
export async function token(server, { client, authentication }, { handle }, parameters = {}) {
  for (let nonces = 0; ; nonces += 1) {
    const options = { DPoP: handle, ...insecure };
    const ask = oauth.clientCredentialsGrantRequest;
    const response = await ask(server, client, authentication, parameters, options);
    try {
      const granted = await oauth.processClientCredentialsResponse(server, client, response);
      return { granted, nonces };
    } catch (error) {
      if (nonces > 0 || !oauth.isDPoPNonceError(error)) throw error;
    }
  }
}

/** Header and claims of a token, verified with the published keys as an API does. */
export async function verified(server, text, audience) {
  const keys = jose.createRemoteJWKSet(new URL(server.jwks_uri));
  const { payload, protectedHeader } = await jose.jwtVerify(text, keys, {
    issuer: server.issuer,
    audience,
    requiredClaims: ["exp", "iat", "jti", "cnf", "client_id"],
  });
  return { header: protectedHeader, claims: payload };
}

/** An API as a signed-in client calls it: a token for as long as it is good, and a proof of its own for each call. */
export class SignedIn {
  #server;
  #client;
  #prover;
  #parameters;
  #granted;
  #until = 0;

  constructor(server, client, prover, parameters = {}) {
    [this.#server, this.#client, this.#prover, this.#parameters] = [server, client, prover, parameters];
  }

  /** How many tokens it has asked for. */
  tokens = 0;

  async #token() {
    // A second early: what is sent now is looked at later.
    if (Date.now() > this.#until - 1_000) {
      const askedAt = Date.now();
      ({ granted: this.#granted } = await token(this.#server, this.#client, this.#prover, this.#parameters));
      this.#until = askedAt + this.#granted.expires_in * 1_000;
      this.tokens += 1;
    }
    return this.#granted.access_token;
  }

  /** The answer, whatever it is; a challenge in it is thrown by oauth4webapi, which reads it. */
  async call(method, url, { headers, body, ...options } = {}) {
    headers = new Headers({ "api-version": "3", "nhn-source-system": "oauth4webapi/1", ...headers });
    options = { DPoP: this.#prover.handle, ...insecure, ...options };
    const ask = oauth.protectedResourceRequest;
    return ask(await this.#token(), method, new URL(url), headers, body ?? null, options);
  }
}

/** The notifications of these receivers, or one page of them. */
export function address(base, path, herIds, parameters = {}) {
  const query = new URLSearchParams(parameters);
  for (const herId of herIds) query.append("HerIds", herId);
  return `${base}${path}?${query}`;
}

/** Appends one notification; its answer, which is text. */
export async function append(api, base, herId) {
  const draft = { relatedMessageId: crypto.randomUUID(), type: "NewMessage", notificationReceiverHerId: herId };
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ notifications: [draft] });
  return api.call("POST", `${base}/notifications`, { headers, body });
}
