"""Code that runs and keeps its state, through the unmodified Python code interpreter client, sync and async."""

import base64
import threading
import time

from e2b_code_interpreter import AsyncSandbox, NotFoundException, Sandbox, SandboxException, TimeoutException

from cases import case, main, raises

# No template is named: the client asks for its own.
sandbox = Sandbox.create(timeout=900, envs={"GREETING": "hällo"})
run = sandbox.run_code


def said(execution):
    """What was written to both streams: it comes in pieces of any size."""
    return "".join(execution.logs.stdout), "".join(execution.logs.stderr)


@case
def code_says_what_it_wrote_what_it_is_and_how_often_it_ran():
    first = run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n20 + 22")
    assert (first.text, first.execution_count, first.error) == ("42", 1, None)
    assert said(first) == ("out\n", "err\n")
    assert run("'a string'").text == "a string"
    assert (run("x = 1").text, run("x").execution_count) == (None, 4)


@case
def errors_have_a_name_a_value_and_a_traceback_and_the_state_stays():
    failed = run("kept = 'kept'\nprint('before')\nraise ValueError('bad ü')")
    assert (failed.error.name, failed.error.value, failed.text) == ("ValueError", "bad ü", None)
    assert "ValueError" in failed.error.traceback and "line 3" in failed.error.traceback
    assert said(failed) == ("before\n", "")
    assert run("def f(:").error.name == "SyntaxError"
    assert run("import time\nasync def g(): return kept\nawait g()").text == "kept"
    assert "from a shell" in said(run("!echo from a shell"))[0]


@case
def output_comes_as_it_is_written():
    seen, came = [], []

    def note(message):
        seen.append(message)
        came.append(time.monotonic())

    done = run("import time\nfor n in range(3):\n    print(n, flush=True)\n    time.sleep(0.4)\n7", on_stdout=note)
    assert "".join(message.line for message in seen) == "0\n1\n2\n" and done.text == "7"
    assert came[-1] - came[0] > 0.5, came
    assert abs(seen[0].timestamp / 1e9 - time.time()) < 60, seen[0]
    results, errors, wrong = [], [], []
    run("display(1)\n1 / 0", on_result=results.append, on_error=errors.append, on_stderr=wrong.append)
    assert [result.text for result in results] == ["1"] and errors[0].name == "ZeroDivisionError" and wrong == []
    assert len(said(run("print('x' * 1_000_000)"))[0]) == 1_000_001


@case
def results_come_in_all_their_kinds():
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()
    shown = run(
        "from IPython.display import *\n"
        "display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n and more', format='png'))\n"
        "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\n"
        "display(Markdown('*m*'), Latex('$x$'), Javascript('1'), JSON({'a': [1]}))\n"
        "display({'text/plain': 'p', 'x/y': 'other'}, raw=True)\n"
        "HTML('<b>b</b>')"
    ).results
    assert [result.is_main_result for result in shown] == [False] * 7 + [True]
    assert shown[0].png.strip() == png and "png" in list(shown[0].formats())
    assert shown[1].svg.startswith("<svg") and shown[2].markdown == "*m*" and shown[3].latex == "$x$"
    assert shown[4].javascript == "1" and shown[5].json == {"a": [1]}
    assert shown[6].extra == {"x/y": "other"} and shown[7].html == "<b>b</b>"
    assert run("{'b': [1, None, 'ü']}").results[0].json == {"b": [1, None, "ü"]}
    assert run("{1, 2}").results[0].json is None


@case
def variables_are_the_sandboxs_and_the_calls():
    read = "import os\nprint(os.environ.get('GREETING'), os.environ.get('MORE'))"
    assert said(run(read))[0] == "hällo None\n"
    assert said(run(read, envs={"GREETING": "bye", "MORE": "'1\" $x"}))[0] == "bye '1\" $x\n"
    assert said(run(read))[0] == "hällo None\n"
    shell = 'echo "$GREETING $MORE"'
    assert said(run(shell, language="bash", envs={"MORE": "'1\" $x"}))[0] == "hällo '1\" $x\n"
    assert said(run(shell, language="bash"))[0] == "hällo \n"


@case
def a_shell_keeps_its_state_and_other_languages_are_refused():
    told = run("X=1; cd /tmp; echo out; echo err >&2", language="bash")
    assert (said(told), told.error) == (("out\n", "err\n"), None)
    assert said(run("echo $X; pwd; whoami", language="bash"))[0] == "1\n/tmp\nuser\n"
    failed = run("cat; (exit 3)", language="bash")
    assert (failed.error.name, failed.error.value) == ("ExitCode", "3")
    raises(SandboxException, lambda: run("1", language="r"), "python and bash, not r")


@case
def code_past_its_timeout_is_interrupted_and_its_context_goes_on():
    start = time.monotonic()
    raises(TimeoutException, lambda: run("n = 1\nwhile True: time.sleep(0.01)", timeout=1), "timed out")
    assert run("n").text == "1" and time.monotonic() - start < 20
    raises(TimeoutException, lambda: run("N=1; sleep 1000", language="bash", timeout=1))
    assert said(run("echo $N", language="bash"))[0] == "1\n"


@case
def executions_of_one_context_wait_for_each_other():
    answers = {}

    def ask(n):
        turn = "import time\nturns = globals().get('turns', 0) + 1\nmine = turns\ntime.sleep(0.2)\nmine"
        answers[n] = run(turn).text

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers.values()) == ["1", "2", "3"], answers


@case
def contexts_are_apart_start_anew_and_end():
    run("mine = 1")
    context = sandbox.create_code_context(cwd="/tmp")
    assert (context.language, context.cwd) == ("python", "/tmp")
    assert run("import os; mine = 2; os.getcwd()", context=context).text == "/tmp"
    assert (run("mine").text, run("mine", context=context).text) == ("1", "2")
    assert context.id in [one.id for one in sandbox.list_code_contexts()]
    # A process that ends takes its variables along, and nothing else.
    assert run("import os; os._exit(1)", context=context).error.name == "KernelDied"
    assert run("mine", context=context).error.name == "NameError"
    shell = sandbox.create_code_context(language="bash")
    run("mine=3", context=shell)
    sandbox.restart_code_context(shell)
    assert said(run("echo [$mine]", context=shell))[0] == "[]\n"
    for one in (context, shell):
        sandbox.remove_code_context(one)
        raises(NotFoundException, lambda: run("1", context=one), one.id)
    raises(NotFoundException, lambda: sandbox.restart_code_context("none"))
    raises(SandboxException, lambda: sandbox.create_code_context(cwd="/no/such"), "/no/such")


@case
def no_two_sandboxes_draw_the_same():
    run("import random\nrandom.seed(1)")
    forks = sandbox.fork(count=2, timeout=200)
    other = Sandbox.create(timeout=200)
    draw = "import random, uuid\nprint(random.random(), uuid.uuid4())"
    draws = [said(one.run_code(draw))[0].split() for one in [*forks, other]]
    assert [len(set(kind)) for kind in zip(*draws)] == [3, 3], draws
    assert forks[0].run_code("mine").text == "1"
    for one in [*forks, other]:
        one.kill()


@case
async def the_asynchronous_client_runs_code():
    other = await AsyncSandbox.connect(sandbox.sandbox_id)
    seen = []
    code = "print('a')\nasynchronous = 2\nasynchronous"
    done = await other.run_code(code, on_stdout=lambda message: seen.append(message.line))
    assert done.text == "2" and "".join(seen) == "a\n"
    assert run("asynchronous").text == "2"


@case
def a_pause_keeps_the_state():
    run("before = 5")
    sandbox.pause()
    assert Sandbox.connect(sandbox.sandbox_id).run_code("before").text == "5"
    assert sandbox.kill() is True
    raises(SandboxException, lambda: run("1"))


if __name__ == "__main__":
    main()
