// An MCP server over stdio whose tools fail in the ways that the console must explain: one that dies in the middle
// of a call, one whose arguments need every kind of field, one that answers with a picture, one that says no.
import { createInterface } from 'node:readline';

// A picture of 24 by 16 pixels, by hand: so that no file is needed.
const PICTURE =
  'iVBORw0KGgoAAAANSUhEUgAAABgAAAAQCAIAAACDRijCAAAAJ0lEQVR42mP4sMUGjoQa8uCIVHGGYWwQJZqRxYezQaPpaDQdUcEgANBVKB9fP0DfAAAAAElFTkSuQmCC';
const safe = { readOnlyHint: true, idempotentHint: true };
const object = (properties, required = []) => ({ type: 'object', properties, required, additionalProperties: false });

const TOOLS = [
  {
    name: 'crash',
    description: 'Ends its server in the middle of the call',
    annotations: safe,
    inputSchema: object({ note: { type: 'string' } }),
  },
  {
    name: 'picture',
    description: 'Draws a picture',
    annotations: safe,
    inputSchema: object({ caption: { type: 'string', default: 'a square' } }),
  },
  {
    name: 'refuse',
    description: 'Says that the order cannot be taken',
    annotations: { readOnlyHint: false },
    inputSchema: object({ order: { type: 'string', description: 'The number of the order' } }, ['order']),
  },
  {
    name: 'order',
    title: 'Take an order',
    description: 'Gives back what it was given, as text and as structured content',
    annotations: safe,
    inputSchema: object(
      {
        customer: { type: 'string', minLength: 1, description: 'Who orders' },
        pieces: { type: 'integer', minimum: 1, maximum: 99, default: 1 },
        discount: { type: 'number', minimum: 0, maximum: 1 },
        express: { type: 'boolean', default: false, description: 'Before noon' },
        size: { type: 'string', enum: ['small', 'medium', 'large'], default: 'medium' },
        tags: { type: 'array', items: { type: 'string' } },
        address: object({ street: { type: 'string' }, number: { type: 'integer' } }, ['street']),
        extra: { description: 'Anything at all' },
      },
      ['customer', 'pieces'],
    ),
  },
];

const text = (said) => ({ content: [{ type: 'text', text: said }] });

const CALLS = {
  crash: () => process.exit(1),
  picture: ({ caption }) => ({
    content: [
      { type: 'text', text: caption ?? 'a square' },
      { type: 'image', data: PICTURE, mimeType: 'image/png' },
    ],
  }),
  refuse: ({ order }) => ({ ...text(`order ${order} was cancelled by its customer`), isError: true }),
  order: (given) => ({ ...text(JSON.stringify(given)), structuredContent: { taken: true, order: given } }),
};

const METHODS = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'console-fixture', version: '1.0.0' },
  }),
  ping: () => ({}),
  'tools/list': () => ({ tools: TOOLS }),
  'tools/call': ({ name, arguments: given }) => CALLS[name](given ?? {}),
};

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const run = METHODS[method];
  const answer = run
    ? { result: run(params ?? {}) }
    : { error: { code: -32601, message: `there is no method ${method}` } };
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...answer })}\n`);
});
