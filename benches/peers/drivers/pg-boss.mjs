// pg-boss: batches that are fetched and settled as one, several local workers, NOTIFY, and no pause while batches are
// full; see https://timgit.github.io/pg-boss and the options in its types.

import pg from 'pg'
import { PgBoss } from 'pg-boss'

import { batches, job as arguments_, paced, singles, tally, work } from './job.mjs'

const QUEUE = 'bench'
const ANY_LEFT = `select exists (
  select from pgboss.job where name = '${QUEUE}' and state in ('created', 'retry', 'active')) as any_left`

const job = arguments_()
const boss = new PgBoss({
  connectionString: job.url,
  max: Math.max(job.connections, 2),
  useListenNotify: true,
  // What it does besides is not measured.
  schedule: false,
  supervise: false
})
boss.on('error', (error) => process.stderr.write(`${error.stack}\n`))
boss.on('warning', (warning) => process.stderr.write(`${JSON.stringify(warning)}\n`))
await boss.start()

switch (job.work) {
  case 'setup':
    await boss.createQueue(QUEUE, { notify: true })
    process.stdout.write('{"work":"setup","count":0,"written":0,"seconds":0}\n')
    break
  case 'enqueue':
    await batches(job, (payloads) => boss.insert(QUEUE, payloads.map((data) => ({ data }))))
    break
  case 'single':
    await singles(job, (payload) => boss.send(QUEUE, payload))
    break
  case 'send':
    await paced(job, (payload) => boss.send(QUEUE, payload))
    break
  case 'drain':
  case 'listen': {
    const counted = tally(job)
    const pool = new pg.Pool({ connectionString: job.url, max: 1 })
    await work(job, {
      counted,
      start: () => boss.work(QUEUE, {
        batchSize: job.batch,
        localConcurrency: 2,
        burstWhenBatchFull: true,
        pollingIntervalSeconds: 0.5
      }, async (jobs) => {
        for (const { data } of jobs) counted.handled(data)
      }),
      anyLeft: async () => (await pool.query(ANY_LEFT)).rows[0].any_left,
      stop: () => pool.end()
    })
    break
  }
  default:
    throw new Error(`pg-boss does not do "${job.work}"`)
}
await boss.stop({ graceful: true, timeout: 5000 })
