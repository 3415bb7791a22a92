// LOCAL AND TEST ONLY. Loaded into Supabase Lite 0.10 with `node --import`; makes up for two differences from a hosted
// project that would keep a page from signing in. Sign-in, sessions and refresh stay Lite's own.
import http from 'node:http';
import { SignJWT, decodeJwt } from 'jose';

// 1. Lite's user tokens lack most claims a hosted project signs, `iss` among them, and the server rightly refuses a
//    token without it. The claims are those of Supabase's "JWT claims reference".
const issuer = process.env.VOICE_TOKEN_ISSUER;
const sign = SignJWT.prototype.sign;

SignJWT.prototype.sign = async function (key, options) {
  const token = await sign.call(this, key, options);
  const claims = decodeJwt(token);
  if (!claims.session_id || claims.iss) return token;
  const complete = {
    iss: issuer, aal: 'aal1', amr: [{ method: 'password', timestamp: claims.iat }], is_anonymous: false, email: '',
    phone: '', app_metadata: { provider: 'email', providers: ['email'] }, user_metadata: {}, ...claims,
  };
  return sign.call(new SignJWT(complete).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }), key, options);
};

// 2. The gateway in front of a hosted project's Auth answers pages of any origin (CORS); Lite's Auth answers none.
const emit = http.Server.prototype.emit;

http.Server.prototype.emit = function (name, request, response, ...rest) {
  if (name !== 'request' || !request.headers.origin || !request.url.startsWith('/auth/v1/')) {
    return emit.call(this, name, request, response, ...rest);
  }
  response.setHeader('Access-Control-Allow-Origin', '*');
  response.setHeader('Access-Control-Expose-Headers', 'X-Supabase-Api-Version');
  if (request.method !== 'OPTIONS') return emit.call(this, name, request, response, ...rest);
  response.writeHead(204, {
    'Access-Control-Allow-Methods': 'GET, POST, PUT, DELETE',
    'Access-Control-Allow-Headers': request.headers['access-control-request-headers'] ?? '',
  }).end();
  return true;
};
