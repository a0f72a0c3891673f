// Runs code in a sandbox. E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say where.
import { Sandbox } from 'e2b'

const sandbox = await Sandbox.create('base', { timeoutMs: 120_000, metadata: { 'made-by': 'quickstart' } })
try {
  await sandbox.files.write('hello.js', 'console.log(6 * 7)')
  const result = await sandbox.commands.run('cat hello.js && echo $((6*7))')
  process.stdout.write(result.stdout)
} finally {
  await sandbox.kill()
}
