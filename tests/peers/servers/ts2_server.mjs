// A server on the official TypeScript SDK of the dual-era line, over streamable HTTP.
//
// Usage: target/peers/node_modules/.bin/node tests/peers/servers/ts2_server.mjs
// Prints its URL as the first line.

import { createServer } from 'node:http';

import { load } from '../clients/lines.mjs';

const { McpServer, createMcpHandler, fromJsonSchema } = load('@modelcontextprotocol/server');
const { toNodeHandler } = load('@modelcontextprotocol/node');

const TEXT = { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] };

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: 'ts2', version: '1' });
  const description = 'Answers with the text.';
  server.registerTool('echo', { description, inputSchema: fromJsonSchema(TEXT) }, async ({ text }) => ({
    content: [{ type: 'text', text }],
  }));
  return server;
});

const listener = createServer(toNodeHandler(handler));
listener.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${listener.address().port}/mcp`);
});
