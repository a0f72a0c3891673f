// The same as domain.py with the JavaScript client. CommonJS, since NODE_PATH leads nowhere else.
const { Sandbox } = require("e2b");

async function main() {
  const sandbox = await Sandbox.create("base", { timeoutMs: 120_000 });
  const { stdout } = await sandbox.commands.run("echo by name");
  if (stdout !== "by name\n") throw new Error(stdout);
  await sandbox.files.write("/tmp/page/index.html", "hello from a name");
  await sandbox.commands.run("cd /tmp/page && python3 -m http.server 8000", { background: true });
  await sandbox.commands.run("until curl -s localhost:8000 >/dev/null; do sleep 0.1; done");
  const answer = await fetch(`https://${sandbox.getHost(8000)}/`);
  const text = await answer.text();
  if (text !== "hello from a name") throw new Error(text);
  await sandbox.kill();
  console.log("by name: ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
