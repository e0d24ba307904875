// Requests to the service: the API key, errors as problem documents, downloads.

const KEY = "senoscope-api-key";
const TIMEOUT_MS = 8000;

/** An error that the service answered with (RFC 9457). */
export class Problem extends Error {
  constructor({ status, code = "", detail = "", title = "" }) {
    super(detail || title || `the service answered ${status}`);
    Object.assign(this, { status, code });
  }
}

/** The service did not answer. */
export class Unreachable extends Error {}

let key = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);

/** `requestKey` is called with the reason when a key, or one with more scopes, is required; set by the page. */
export const access = { requestKey: () => {} };

export function setKey(value, remember) {
  forgetKey();
  key = value;
  (remember ? localStorage : sessionStorage).setItem(KEY, value);
}

export function forgetKey() {
  key = null;
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
}

export const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** Opens a WebSocket. A page cannot set its headers, so the key is sent as one of its subprotocols. */
export function socket(path) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  return new WebSocket(url, key ? ["senoscope", `bearer.${key}`] : ["senoscope"]);
}

async function request(path, { timeoutMs = TIMEOUT_MS, ...options } = {}) {
  try {
    return await fetch(new URL(path, document.baseURI), {
      signal: AbortSignal.timeout(timeoutMs),
      ...options,
      headers: { ...headers(), ...options.headers },
    });
  } catch {
    throw new Unreachable("the service does not answer");
  }
}

async function answer(path, options) {
  const response = await request(path, options);
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({})); // not a problem document: only the status is known
  throw failed({ ...problem, status: response.status });
}

/** Returns the error of a problem document; requests a key if one is missing. */
export function failed(document) {
  const problem = new Problem(document);
  if (problem.status === 401) access.requestKey(problem.message);
  return problem;
}

async function complete(body) {
  try {
    return await body;
  } catch {
    throw new Unreachable("the connection was lost during an answer");
  }
}

export const json = async (path, options) => complete((await answer(path, options)).json());
export const bytes = async (path, options) => complete((await answer(path, options)).arrayBuffer());

/** Returns a file. */
export const file = async (path) => complete((await answer(path, { timeoutMs: 600_000 })).blob());

/** Returns whether the service is ready; needs no key. The status is 503 if it is not. */
export const readiness = async () => complete((await request("readyz", { timeoutMs: 4000 })).json());

/** Saves a file on the user's computer. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
