// graphile-worker, with the settings of https://worker.graphile.org/docs/performance: a local queue of 500 and
// completions in batches.

import { Logger, makeWorkerUtils, run, runMigrations } from 'graphile-worker'
import pg from 'pg'

import { batches, job as arguments_, paced, singles, tally, work } from './job.mjs'

const job = arguments_()
const logger = new Logger(() => (level, message) => {
  if (level === 'error' || level === 'warning') process.stderr.write(`${message}\n`)
})
const pool = new pg.Pool({ connectionString: job.url, max: job.connections })
const utils = job.work === 'setup' ? undefined : await makeWorkerUtils({ pgPool: pool, logger })

switch (job.work) {
  case 'setup':
    await runMigrations({ pgPool: pool, logger })
    process.stdout.write('{"work":"setup","count":0,"written":0,"seconds":0}\n')
    break
  case 'enqueue':
    await batches(job, (payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: 'count', payload }))))
    break
  case 'single':
    await singles(job, (payload) => utils.addJob('count', payload))
    break
  case 'send':
    await paced(job, (payload) => utils.addJob('count', payload))
    break
  case 'drain':
  case 'listen': {
    const counted = tally(job)
    let runner
    await work(job, {
      counted,
      start: async () => {
        runner = await run({
          pgPool: pool,
          logger,
          noHandleSignals: true,
          taskList: { count: (payload) => { counted.handled(payload) } },
          preset: {
            worker: {
              concurrentJobs: 24,
              localQueue: { size: job.batch },
              completeJobBatchDelay: 0,
              failJobBatchDelay: 0
            }
          }
        })
      },
      anyLeft: async () => {
        const { rows } = await pool.query('select exists (select from graphile_worker._private_jobs) as any_left')
        return rows[0].any_left
      },
      stop: () => runner.stop()
    })
    break
  }
  default:
    throw new Error(`graphile-worker does not do "${job.work}"`)
}
await utils?.release()
await pool.end()
