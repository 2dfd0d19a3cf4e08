// A certified OpenID provider in the place of Auth0, as it comes: only settings are ours.
//
// Reads from its environment: CLIENT_ID, AUDIENCE, REDIRECT_URI. Prints its issuer once it listens, on 127.0.0.1, and ends
// when its stdin does. Whoever signs in is who they say: the login is the account and its address, and an address that
// begins with "unverified" is one that nobody has verified.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const { CLIENT_ID, AUDIENCE, REDIRECT_URI } = process.env;

const whoIs = (login) => ({
  email: login,
  email_verified: !login.startsWith("unverified"),
  name: login.split("@")[0],
});

// The apps as the issuer knows them: public, so that nothing but PKCE guards a code.
const app = {
  client_id: CLIENT_ID,
  application_type: "native",
  token_endpoint_auth_method: "none",
  redirect_uris: [REDIRECT_URI],
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
};

// Auth0 gives a JWT for the API that `audience` names; here that API is the one there is.
const resourceIndicators = {
  enabled: true,
  defaultResource: () => AUDIENCE,
  useGrantedResource: () => true,
  getResourceServerInfo: () => ({
    scope: "read",
    audience: AUDIENCE,
    accessTokenTTL: 3600,
    accessTokenFormat: "jwt",
    jwt: { sign: { alg: "RS256" } },
  }),
};

function makeSigningKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "RS256" };
}

const settings = {
  clients: [app],
  jwks: { keys: [makeSigningKey()] },
  cookies: { keys: [randomUUID()] },
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  scopes: ["openid", "offline_access"],
  extraParams: ["audience", "connection"],
  features: { resourceIndicators, revocation: { enabled: true } },
  ttl: {
    AccessToken: 3600, AuthorizationCode: 60, Grant: 86400, IdToken: 3600, Interaction: 600, RefreshToken: 86400,
    Session: 86400,
  },
  findAccount: (_, login) => ({ accountId: login, claims: () => ({ sub: login, ...whoIs(login) }) }),
  // To be asked for offline_access it wants prompt=consent beside it (OpenID Connect Core, 11), which Auth0 does not.
  issueRefreshToken: () => true,
  // Its userinfo endpoint takes no token that is meant for an API, so the token says who somebody is (RFC 9068, 2.2.2).
  extraTokenClaims: (_, token) => whoIs(token.accountId),
};

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on("request", new Provider(issuer, settings).callback());
  process.stdout.write(`${issuer}\n`);
});
process.stdin.resume().on("end", () => process.exit());
