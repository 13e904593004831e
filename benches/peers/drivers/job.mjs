// What the drivers for Node.js share: the arguments, the clock and the line that src/drive.rs describes.

import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

const TEXT = 'the quick brown fox jumps over the lazy dog and then goes home to sleep until the sun is up again, ok'

export function job () {
  const text = { type: 'string' }
  const options = { url: text, work: text, messages: text, batch: text, connections: text, rate: text, variant: text }
  const { values } = parseArgs({ options })
  const numbers = ['messages', 'batch', 'connections', 'rate'].map((name) => [name, Number(values[name])])
  return { ...values, ...Object.fromEntries(numbers) }
}

export const payload = (n) => ({ n, text: TEXT })

// CLOCK_MONOTONIC, which all processes share.
const now = () => Number(process.hrtime.bigint())

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

export const ready = () => say({ ready: true })

export function done (job, count, seconds, { written = count, latencies = [] } = {}) {
  say({ work: job.work, count, written, seconds, latencies_ms: latencies })
}

async function timed (work) {
  const start = performance.now()
  await work()
  return (performance.now() - start) / 1000
}

// Batches, one after the other; one goes before the clock starts.
export async function batches (job, send) {
  const range = (from, to) => Array.from({ length: to - from }, (_, i) => payload(from + i))
  await send(range(0, job.batch))
  const end = job.batch + job.messages
  const seconds = await timed(async () => {
    for (let from = job.batch; from < end; from += job.batch) {
      await send(range(from, Math.min(end, from + job.batch)))
    }
  })
  done(job, job.messages, seconds, { written: end })
}

// Producers at once, one message at a time; one message of each goes before the clock starts.
export async function singles (job, send) {
  const produce = async (messages) => {
    let next = 0
    const producer = async () => { while (next < messages) await send(payload(next++)) }
    await Promise.all(Array.from({ length: job.connections }, producer))
  }
  await produce(job.connections)
  const seconds = await timed(() => produce(job.messages))
  done(job, job.messages, seconds, { written: job.messages + job.connections })
}

// Messages that say when they were sent.
export async function paced (job, send) {
  const start = performance.now()
  for (let n = 0; n < job.messages; n++) {
    const due = start + n * 1000 / job.rate
    if (due > performance.now()) await sleep(due - performance.now())
    await send({ n, at: now() })
  }
  done(job, job.messages, (performance.now() - start) / 1000)
}

// Counts what a handler was given.
export function tally (job) {
  const latencies = []
  let count = 0
  let reached
  const all = new Promise((resolve) => { reached = resolve })
  return {
    all,
    latencies,
    get count () { return count },
    handled (payload) {
      if (payload.at !== undefined) latencies.push((now() - payload.at) / 1e6)
      if (++count === job.messages) reached()
    }
  }
}

// Starts a worker, waits for the handlers and then for the last ack in the database, and stops the worker.
export async function work (job, { counted, start, anyLeft, stop }) {
  const seconds = await timed(async () => {
    await start()
    if (job.work === 'listen') ready()
    await counted.all
    while (await anyLeft()) await sleep(2)
  })
  await stop()
  done(job, counted.count, seconds, { latencies: counted.latencies })
}
