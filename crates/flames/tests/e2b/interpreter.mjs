// Code that runs and keeps its state, through the unmodified JavaScript code interpreter client. Run with the folder of
// the clients as its argument.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(pathToFileURL(process.argv[2] + '/js/x.js'))
const { Sandbox } = require('@e2b/code-interpreter')

// No template is named: the client asks for its own.
const sandbox = await Sandbox.create({ timeoutMs: 300_000, envs: { GREETING: 'hällo' } })

const seen = []
const code = 'import os\nprint(os.environ["GREETING"])\n20 + 22'
const first = await sandbox.runCode(code, { onStdout: (said) => seen.push(said.line) })
assert.deepEqual([first.text, first.executionCount, first.error], ['42', 1, undefined])
// It comes in pieces of any size.
assert.deepEqual([first.logs.stdout.join(''), seen.join('')], ['hällo\n', 'hällo\n'])

const failed = await sandbox.runCode('x = 3\n1 / 0')
assert.deepEqual([failed.error.name, failed.error.value], ['ZeroDivisionError', 'division by zero'])
assert.equal((await sandbox.runCode('x')).text, '3')
const [shown] = (await sandbox.runCode('from IPython.display import HTML\nHTML("<b>")')).results
assert.deepEqual([shown.html, shown.isMainResult], ['<b>', true])

const shell = await sandbox.runCode('echo $MORE; exit 4', { language: 'bash', envs: { MORE: 'more' } })
assert.deepEqual([shell.logs.stdout.join(''), shell.error.value], ['more\n', '4'])
await assert.rejects(sandbox.runCode('import time; time.sleep(100)', { timeoutMs: 1_000 }), /timed out/)
assert.equal((await sandbox.runCode('x + 1')).text, '4')

const context = await sandbox.createCodeContext({ language: 'bash', cwd: '/tmp' })
assert.equal((await sandbox.runCode('pwd', { context })).logs.stdout.join(''), '/tmp\n')
assert((await sandbox.listCodeContexts()).some((one) => one.id === context.id))
await sandbox.restartCodeContext(context)
await sandbox.removeCodeContext(context)
await assert.rejects(sandbox.runCode('pwd', { context }))
await sandbox.kill()
console.log('code interpreter in JavaScript: ok')
// A timer of the client runs on after an answer that refuses.
process.exit(0)
