// The client half of the official conformance runner, with a gateway between
// the two: starts MagicTunnel in front of the scenario's server, and does
// through it what the scenario expects of a client.
//
// Usage: conformance_client.mjs MTCTL legacy|modern SERVER_URL
//        (the runner adds the URL, and says the scenario in its environment)

import { spawn } from 'node:child_process';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { CLIENT_NAME, load } from './lines.mjs';

const { Client, StreamableHTTPClientTransport } = load('@modelcontextprotocol/client');

const START_MS = 20_000;
const [mtctl, front, server] = process.argv.slice(2);
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const modernServer = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION === '2026-07-28';

// What the scenario's server offers, so that the gateway can be waited for.
const OFFERS = { initialize: 0, 'request-metadata': 0 };

const EXPECTED = {
  tools_call: (client) => client.callTool({ name: 'add_numbers', arguments: { a: 5, b: 3 } }),
  'elicitation-sep1034-client-defaults': (client) =>
    client.callTool({ name: 'test_client_elicitation_defaults', arguments: {} }),
  'sse-retry': (client) => client.callTool({ name: 'test_reconnection', arguments: {} }),
  'sep-2322-client-request-state': async (client) => {
    const call = (name) => client.callTool({ name, arguments: {} });
    await Promise.all([call('test_mrtr_echo_state'), call('test_mrtr_unrelated')]);
    await call('test_mrtr_no_state');
    // This SDK wants a result type where the revision asks for one.
    await call('test_mrtr_no_result_type').catch(() => {});
  },
  'http-standard-headers': async (client) => {
    for (const { name } of (await client.listTools()).tools) await client.callTool({ name, arguments: {} });
    for (const { uri } of (await client.listResources()).resources) await client.readResource({ uri });
    for (const { name } of (await client.listPrompts()).prompts) await client.getPrompt({ name });
  },
  'http-custom-headers': async (client) => {
    await client.listTools();
    for (const call of context.toolCalls) await client.callTool(call);
  },
  'http-invalid-tool-headers': async (client) => {
    for (const { name, inputSchema } of (await client.listTools()).tools) {
      const values = Object.entries(inputSchema.properties ?? {}).map(([key]) => [key, 'x']);
      await client.callTool({ name, arguments: Object.fromEntries(values) }).catch(() => {});
    }
  },
  'json-schema-2020-12-preservation': async (client) => {
    const { tools } = await client.listTools();
    const schema = tools.find((tool) => tool.name === 'json_schema_2020_12_tool').inputSchema;
    const echo = tools.find((tool) => tool.name !== 'json_schema_2020_12_tool').name;
    await client.callTool({ name: echo, arguments: { schema } });
  },
};

const home = mkdtempSync(join(tmpdir(), 'gateway-'));
const gateway = await startGateway();
try {
  const client = new Client(
    { name: CLIENT_NAME, version: '2' },
    {
      capabilities: { sampling: {}, elicitation: {}, roots: {} },
      versionNegotiation: { mode: front === 'modern' ? { pin: '2026-07-28' } : 'legacy' },
    },
  );
  client.setRequestHandler('elicitation/create', async ({ params }) => {
    const fields = Object.entries(params.requestedSchema.properties);
    const content = fields.map(([name, field]) => [name, field.default ?? true]);
    return { action: 'accept', content: Object.fromEntries(content) };
  });
  await client.connect(new StreamableHTTPClientTransport(new URL(gateway.url)));
  if (OFFERS[scenario] !== 0) await client.listTools();
  await EXPECTED[scenario]?.(client);
  await client.close();
} finally {
  gateway.process.kill('SIGTERM');
  await new Promise((ended) => gateway.process.once('exit', ended));
  rmSync(home, { recursive: true, force: true });
}

// The gateway shows the names of the server as they are.
async function startGateway() {
  const files = join(home, 'files');
  mkdirSync(files);
  const documents = [
    { kind: 'Backend', metadata: { name: 'scenario' }, spec: { http: { url: server }, protocol: modernServer ? 'modern' : 'legacy' } },
    { kind: 'Gateway', metadata: { name: 'default' }, spec: { toolName: '{tool}', members: [{ backend: 'scenario' }] } },
  ];
  const text = documents.map((document) => JSON.stringify({ apiVersion: 'magictunnel/v1', ...document }));
  writeFileSync(join(files, 'gateway.yaml'), text.join('\n---\n'));
  const ports = ['--listen', '--control', '--http', '--admin'].flatMap((flag) => [flag, '127.0.0.1:0']);
  const process = spawn(mtctl, ['--data-dir', join(home, 'data'), 'up', ...ports, files], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const url = await new Promise((found, failed) => {
    let address;
    process.once('exit', () => failed(new Error('the gateway has ended')));
    createInterface({ input: process.stderr }).on('line', (line) => {
      address ??= line.match(/http:\/\/\S+\/mcp/)?.[0];
      if (line.includes('Ready in')) found(address);
    });
  });
  await lists(url);
  return { process, url };
}

// The gateway shows what the server offers only once it has asked it.
async function lists(url) {
  if (OFFERS[scenario] === 0) return;
  const body = JSON.stringify({
    jsonrpc: '2.0',
    id: 1,
    method: 'tools/list',
    params: { _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } },
  });
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': '2026-07-28',
    'mcp-method': 'tools/list',
  };
  for (const deadline = Date.now() + START_MS; Date.now() < deadline; await sleep(50)) {
    const answer = await (await fetch(url, { method: 'POST', headers, body })).json();
    if (answer.result?.tools.length > 0) return;
  }
  throw new Error(`the gateway shows no tools of ${server}`);
}
