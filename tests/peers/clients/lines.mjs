// What the TypeScript SDK's clients have in common: arguments, JSON lines, fixed
// answers, and where the SDKs are. Each line on stdout is one JSON object with an
// "event". A client that fails says so in a last line, with the event "error",
// and exits with 1.

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

// No test may hang on a client.
const DEADLINE_MS = 60_000;

export const CLIENT_NAME = 'magictunnel-peer';
export const CAPABILITIES = { sampling: {}, elicitation: {}, roots: {} };

// The answers to everything that a server may ask, by method.
export const ANSWERS = {
  'sampling/createMessage': {
    role: 'assistant',
    content: { type: 'text', text: 'Paris' },
    model: 'none',
  },
  'elicitation/create': {
    action: 'accept',
    content: { name: 'Ada', color: 'green', ok: true, value: '42', username: 'ada', email: 'ada@example.com' },
  },
  'roots/list': { roots: [{ uri: 'file:///workspace' }] },
};

// Loads a package that tests/setup.sh has installed.
export const load = createRequire(new URL('../../../target/peers/', import.meta.url));

export function say(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

export function readArguments(extra = {}) {
  const options = {
    tool: { type: 'string' },
    args: { type: 'string', default: '{}' },
    // Further calls: a list of [tool, arguments].
    calls: { type: 'string', default: '[]' },
    ...extra,
  };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (positionals.length !== 1) throw new Error('exactly one URL is needed');
  const calls = JSON.parse(values.calls);
  if (values.tool !== undefined) calls.unshift([values.tool, JSON.parse(values.args)]);
  return { ...values, url: new URL(positionals[0]), calls };
}

// All tools, and how many pages they came in.
export async function everyTool(client) {
  const names = [];
  let pages = 0;
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? {} : { cursor });
    names.push(...page.tools.map((tool) => tool.name));
    pages += 1;
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return { names, pages };
}

// Runs an async function to its end, within the deadline.
export async function run(main) {
  const deadline = setTimeout(() => fail(new Error(`not done within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  try {
    await main();
  } catch (error) {
    fail(error);
  }
  clearTimeout(deadline);
}

function fail(error) {
  console.error(error);
  say('error', { message: `${error.name}: ${error.message}` });
  process.exit(1);
}
