// The house through the unmodified JavaScript client. Run with the folder of the clients as its argument.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(pathToFileURL(process.argv[2] + '/js/x.js'))
const { Sandbox, CommandExitError, SandboxNotFoundError, NotFoundError } = require('e2b')

const cases = {
  async a_whole_life() {
    const metadata = { client: 'js', odd: 'Ä & = + %' }
    const sandbox = await Sandbox.create('base', { timeoutMs: 200_000, metadata, envs: { A: '1' } })
    assert(await sandbox.isRunning())
    assert.deepEqual((await sandbox.getInfo()).metadata, metadata)
    const page = await Sandbox.list({ query: { metadata } }).nextItems()
    assert.deepEqual(page.map((one) => one.sandboxId), [sandbox.sandboxId])
    const again = await Sandbox.connect(sandbox.sandboxId)
    assert.equal((await again.commands.run('echo $A')).stdout, '1\n')
    await sandbox.setTimeout(60_000)
    assert.equal((await sandbox.getMetrics()).length, 1)
    assert.equal(await sandbox.kill(), true)
    assert.equal(await Sandbox.kill(sandbox.sandboxId), false)
    await assert.rejects(Sandbox.connect(sandbox.sandboxId), NotFoundError)
    assert.equal(await sandbox.isRunning(), false)
  },

  async commands_and_files() {
    const sandbox = await Sandbox.create('base')
    const out = []
    const result = await sandbox.commands.run('echo out; echo err >&2', { onStdout: (data) => out.push(data) })
    assert.equal(result.stdout, 'out\n')
    assert.equal(result.stderr, 'err\n')
    assert.equal(out.join(''), 'out\n')
    await assert.rejects(sandbox.commands.run('exit 4'), (error) => error instanceof CommandExitError && error.exitCode === 4)
    const lines = await sandbox.commands.run('seq 10000', { timeoutMs: 120_000 })
    assert.equal(lines.stdout.split('\n').length, 10_001)
    const handle = await sandbox.commands.run('cat', { background: true, stdin: true })
    await sandbox.commands.sendStdin(handle.pid, 'hi\n')
    assert((await sandbox.commands.list()).some((one) => one.pid === handle.pid))
    assert.equal(await sandbox.commands.kill(handle.pid), true)
    await sandbox.files.write('a/b.txt', 'ü')
    assert.equal(await sandbox.files.read('a/b.txt'), 'ü')
    assert.deepEqual((await sandbox.files.list('a')).map((one) => one.name), ['b.txt'])
    assert.equal(await sandbox.files.makeDir('a'), false)
    await sandbox.files.rename('a/b.txt', 'a/c.txt')
    assert.equal(await sandbox.files.exists('a/b.txt'), false)
    const big = new Uint8Array(20 << 20).fill(7)
    await sandbox.files.write('big', big.buffer)
    assert.equal((await sandbox.files.read('big', { format: 'bytes' })).length, big.length)
    const answer = await fetch(await sandbox.downloadUrl('a/c.txt'))
    assert.equal(await answer.text(), 'ü')
    await sandbox.kill()
  },

  async a_watch_and_a_terminal_stream() {
    const sandbox = await Sandbox.create('base')
    const seen = new Set()
    await sandbox.files.makeDir('/home/user/w')
    const watch = await sandbox.files.watchDir('/home/user/w', (event) => seen.add(event.name))
    await sandbox.files.write('/home/user/w/new', 'x')
    for (let n = 0; n < 100 && !seen.has('new'); n++) await new Promise((done) => setTimeout(done, 50))
    assert(seen.has('new'))
    await watch.stop()
    let shown = ''
    const terminal = await sandbox.pty.create({
      cols: 80, rows: 24, onData: (data) => { shown += new TextDecoder().decode(data) },
    })
    await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode('echo $((6*7)); exit\n'))
    await terminal.wait().catch(() => {})
    assert(shown.includes('42'), shown)
    await sandbox.kill()
  },
}

let failed = 0
for (const [name, run] of Object.entries(cases)) {
  if (process.argv[3] && !name.includes(process.argv[3])) continue
  const start = performance.now()
  try {
    await run()
    console.log(`ok ${name} (${((performance.now() - start) / 1000).toFixed(2)} s)`)
  } catch (error) {
    failed += 1
    console.error(error)
    console.log(`FAILED ${name}`)
  }
}
process.exit(failed ? 1 : 0)
