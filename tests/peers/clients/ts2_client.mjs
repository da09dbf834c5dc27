// A client on the official TypeScript SDK of the dual-era line: lists, then calls.
//
// Usage: target/peers/node_modules/.bin/node tests/peers/clients/ts2_client.mjs URL
//        [--era auto|legacy|modern] [--tool NAME --args JSON] [--calls JSON]

import { ANSWERS, CAPABILITIES, CLIENT_NAME, everyTool, load, readArguments, run, say } from './lines.mjs';

const { Client, StreamableHTTPClientTransport } = load('@modelcontextprotocol/client');

const MODES = { auto: 'auto', legacy: 'legacy', modern: { pin: '2026-07-28' } };

await run(async () => {
  const { url, calls, era } = readArguments({ era: { type: 'string', default: 'auto' } });
  if (!Object.hasOwn(MODES, era)) throw new Error(`unknown era ${era}`);
  const client = new Client(
    { name: CLIENT_NAME, version: '2' },
    { capabilities: CAPABILITIES, versionNegotiation: { mode: MODES[era] } },
  );
  for (const [method, answer] of Object.entries(ANSWERS)) {
    client.setRequestHandler(method, async () => answer);
  }

  const transport = new StreamableHTTPClientTransport(url);
  await client.connect(transport);
  say('connected', {
    protocol_version: client.getNegotiatedProtocolVersion(),
    server: client.getServerVersion(),
    has_session: transport.sessionId !== undefined,
  });
  // This SDK walks the pages itself unless it is given a cursor.
  say('tools', await everyTool(client));
  for (const [tool, values] of calls) {
    say('result', { tool, result: await client.callTool({ name: tool, arguments: values }) });
  }
  if (transport.sessionId !== undefined) await transport.terminateSession();
  await client.close();
});
