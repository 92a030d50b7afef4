"""Two commands on the same files: one is held before its k-th rename while the other runs to its
end, for each k.

**In:** on stdin JSON objects: `before`, a folder; `work`, where it is copied to for each k; `first`
and `second`, command lines; `holds`, the k to try, or null for all; `cache`, a folder.
**Out:** on stdout for each a JSON object for each k: `hold`, whether the first command has been
`held` (it has not once it has fewer renames), exit code and stderr of both; then null. The next k
waits for a line on stdin, so that the folder can be looked at.

Both are forks of this process, which has imported what takes long.
"""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path


def run(words, work, err, hold=None, held=None, go=None):
    """In a process of its own: a command; before rename number `hold` it waits. Its pid."""
    if pid := os.fork():
        return pid
    os.chdir(work)
    null, said = os.open(os.devnull, os.O_RDWR), os.open(err, os.O_WRONLY | os.O_CREAT)
    for number, opened in ((0, null), (1, null), (2, said)):
        os.dup2(opened, number)
    count = itertools.count(1)

    def wait_before(call):
        def rename(*arguments, **options):
            if next(count) == hold:
                os.write(held, b".")
                os.read(go, 1)
            return call(*arguments, **options)

        return rename

    if hold:
        os.replace, os.rename = wait_before(os.replace), wait_before(os.rename)
    from lmcli.cli import app

    code = 70
    try:
        app(words, prog_name="lmcli")
    except SystemExit as done:
        code = done.code or 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def try_hold(plan, hold):
    """One k: what came of both."""
    work, errors = Path(plan["work"]), [Path(f"{plan['work']}-{n}") for n in (1, 2)]
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(plan["before"], work)
    for file in errors:
        file.unlink(missing_ok=True)
    (held, tell_held), (go, tell_go) = os.pipe(), os.pipe()
    first = run(plan["first"], work, errors[0], hold, tell_held, go)
    os.close(tell_held)
    was_held = os.read(held, 1) == b"."
    second = code_of(run(plan["second"], work, errors[1]))
    os.write(tell_go, b".")
    codes = [code_of(first), second]
    for opened in (held, go, tell_go):
        os.close(opened)
    said = [file.read_text() for file in errors]
    return {"hold": hold, "held": was_held, "codes": codes, "said": said}


def main():
    import torch

    import lmcli.evaluation.comparison
    import lmcli.pages.subject
    import lmcli.training.launch
    import lmcli.training.sweep  # noqa: F401

    torch.set_num_threads(1)
    for line in iter(sys.stdin.readline, ""):
        plan = json.loads(line)
        os.environ["LMCLI_CACHE"] = plan["cache"]
        for hold in plan["holds"] or itertools.count(1):
            found = try_hold(plan, hold)
            say(found)
            sys.stdin.readline()
            if not found["held"] and not plan["holds"]:
                break
        say(None)


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
