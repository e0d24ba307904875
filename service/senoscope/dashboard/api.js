// Talking to the service: the key, errors as problem documents, downloads.

const KEY = "senoscope-api-key";
const TIMEOUT_MS = 8000;

/** What the service refused, and why (RFC 9457). */
export class Problem extends Error {
  constructor({ status, code = "", detail = "", title = "" }) {
    super(detail || title || `the service answered ${status}`);
    Object.assign(this, { status, code });
  }
}

/** The service did not answer at all. */
export class Unreachable extends Error {}

let key = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
let refused = () => {};

/** Names who is asked for a key when one is wanted. */
export function onUnauthorized(ask) {
  refused = ask;
}

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

/** A WebSocket cannot carry headers from a page: the key travels as one of its subprotocols. */
export function socket(path) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  return new WebSocket(url, key ? ["senoscope", `bearer.${key}`] : ["senoscope"]);
}

async function answer(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      signal: AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS),
      ...options,
      headers: { ...headers(), ...options.headers },
    });
  } catch {
    throw new Unreachable("the service does not answer");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  let document = {};
  try {
    document = await response.json();
  } catch { /* what is no problem document tells by its status alone */ }
  return failed({ ...document, status: response.status });
}

/** Asks for a key, or for one that may do more. */
export function askForKey(why) {
  refused(why);
}

/** A problem from its document; asks for a key where that is what is missing. */
export function failed(document) {
  const problem = new Problem(document);
  if (problem.status === 401) refused(problem.message);
  return problem;
}

async function taken(reading) {
  try {
    return await reading;
  } catch {
    throw new Unreachable("the service fell silent in the middle of an answer");
  }
}

export const json = async (path, options) => taken((await answer(path, options)).json());
export const bytes = async (path, options) => taken((await answer(path, options)).arrayBuffer());

export async function text(path, options) {
  return taken((await answer(path, { timeoutMs: 600_000, ...options })).text());
}

export const send = (path, method, body, options = {}) =>
  json(path, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...options,
    headers: { "Content-Type": "application/json", ...options.headers },
  });

/** Whether the service is ready; asked without a key, and answered with 503 where it is not. */
export async function readiness() {
  try {
    const response = await fetch(new URL("readyz", document.baseURI), { signal: AbortSignal.timeout(4000) });
    return await response.json();
  } catch {
    throw new Unreachable("the service does not answer");
  }
}

/** Hands a file to whoever looks at the page. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function download(path, name) {
  const response = await answer(path, { timeoutMs: 600_000 });
  save(await taken(response.blob()), name);
}
