// A client on the official TypeScript SDK of the legacy line: lists, then calls.
//
// Usage: target/peers/node_modules/.bin/node tests/peers/clients/ts1_client.mjs URL [--tool NAME --args JSON] [--calls JSON]

import { ANSWERS, CAPABILITIES, CLIENT_NAME, everyTool, load, readArguments, run, say } from './lines.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { SSEClientTransport } = load('@modelcontextprotocol/sdk/client/sse.js');
const { WebSocketClientTransport } = load('@modelcontextprotocol/sdk/client/websocket.js');
const { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } = load(
  '@modelcontextprotocol/sdk/types.js',
);

// By what the URL looks like.
function transportTo(url) {
  if (url.protocol === 'ws:') return new WebSocketClientTransport(url);
  if (url.pathname.endsWith('/sse')) return new SSEClientTransport(url);
  return new StreamableHTTPClientTransport(url);
}

await run(async () => {
  const { url, calls } = readArguments();
  const client = new Client({ name: CLIENT_NAME, version: '1' }, { capabilities: CAPABILITIES });
  client.setRequestHandler(CreateMessageRequestSchema, async () => ANSWERS['sampling/createMessage']);
  client.setRequestHandler(ElicitRequestSchema, async () => ANSWERS['elicitation/create']);
  client.setRequestHandler(ListRootsRequestSchema, async () => ANSWERS['roots/list']);

  const transport = transportTo(url);
  await client.connect(transport);
  say('connected', {
    protocol_version: transport.protocolVersion,
    server: client.getServerVersion(),
    has_session: transport.sessionId !== undefined,
  });
  say('tools', await everyTool(client));
  for (const [tool, values] of calls) {
    say('result', { tool, result: await client.callTool({ name: tool, arguments: values }) });
  }
  if (transport.sessionId !== undefined) await transport.terminateSession?.();
  await client.close();
});
