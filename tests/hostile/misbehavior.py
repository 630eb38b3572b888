"""Code that takes, breaks or floods whatever it can reach. What it costs is its own exercise, and nobody else's."""

from __future__ import annotations

from hostile.book import CLASS, FULL, FUNCTION, NO_FUNCTION, Book, Corpus

misbehavior = Corpus()

LIMITED = ("graded", "timed out", "crashed")  # the limit decides how it ends; the marks are the same


@misbehavior(FULL, "timed out", words="took too long")
def endless_loop(book: Book) -> None:
    """A cell that never ends."""
    book.own("while True:\n    pass")


@misbehavior(FULL, "timed out", words="took too long")
def loop_that_ignores_signals(book: Book) -> None:
    """A loop that blocks every signal that can be blocked, and catches every exception."""
    book.own(
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try:\n        signal.signal(number, signal.SIG_IGN)\n    except Exception:\n        pass\n"
        "while True:\n    try:\n        pass\n    except BaseException:\n        pass"
    )


@misbehavior(NO_FUNCTION, words="it took longer than")
def answer_that_never_comes_back(book: Book) -> None:
    """The loop is in the answer, so that it costs its own points."""
    book.answer(FUNCTION, "def kv_bytes_per_token(config, bytes_per_element):\n    while True:\n        pass")


@misbehavior(NO_FUNCTION)
def answer_that_catches_its_alarm(book: Book) -> None:
    """The answer catches the time limit's exception and goes on."""
    book.answer(
        FUNCTION,
        "def kv_bytes_per_token(config, bytes_per_element):\n    while True:\n        try:\n            while True:\n"
        "                pass\n        except BaseException:\n            pass",
    )


@misbehavior(FULL, *LIMITED)
def memory_bomb(book: Book) -> None:
    """Takes memory, page by page, until there is none."""
    book.bomb("hoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * (8 << 20))")


@misbehavior(FULL, *LIMITED)
def memory_bomb_that_goes_on(book: Book) -> None:
    """Takes memory and, when it is refused, takes less."""
    book.bomb(
        "hoard, size = [], 64 << 20\nwhile True:\n    try:\n        hoard.append(bytearray(b'x') * size)\n"
        "    except MemoryError:\n        size = max(size // 2, 64)"
    )


@misbehavior(FULL, *LIMITED)
def memory_of_many_processes(book: Book) -> None:
    """Each process stays below the limit for one; together they do not."""
    book.bomb(
        "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        hoard = bytearray(b'x') * (100 << 20)\n"
        "        time.sleep(600)\n        os._exit(0)\ntime.sleep(600)"
    )


@misbehavior(FULL, *LIMITED)
def fork_bomb(book: Book) -> None:
    """Every process makes processes."""
    book.bomb("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass")


@misbehavior(FULL, *LIMITED)
def thread_bomb(book: Book) -> None:
    """Threads without end."""
    book.bomb("import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(600,)).start()")


@misbehavior(FULL, *LIMITED)
def disk_bomb(book: Book) -> None:
    """Files without end, in every place that can be written."""
    book.bomb(
        "import os\nfor place in ('.', '/tmp', '/var/tmp', '/dev/shm', os.path.expanduser('~')):\n    number = 0\n"
        "    while number < 4000:\n        number += 1\n        try:\n"
        "            with open(f'{place}/bomb-{number}', 'wb') as file:\n                file.write(bytes(1 << 20))\n"
        "        except OSError:\n            break"
    )


@misbehavior(FULL, *LIMITED)
def file_descriptor_bomb(book: Book) -> None:
    """Opens files until there are no more descriptors, and keeps them."""
    book.bomb("kept = []\nwhile True:\n    kept.append(open('/dev/null'))")


@misbehavior(FULL, "timed out", words="took too long")
def endless_printing(book: Book) -> None:
    """Prints for ever: stock nbgrader grows to gigabytes."""
    book.own("while True:\n    print('x' * 10_000)")


@misbehavior(FULL, *LIMITED)
def huge_output(book: Book) -> None:
    """One cell prints 50 MB, to both streams and past Python's own."""
    book.own(
        "import os, sys\nprint('x' * 25_000_000)\nprint('y' * 25_000_000, file=sys.stderr)\n"
        "os.write(1, b'z' * 1_000_000)"
    )


@misbehavior(FULL, "crashed", words="ended Python")
def exit_without_goodbye(book: Book) -> None:
    """A cell ends the process."""
    book.own("import os\nos._exit(0)")


@misbehavior(NO_FUNCTION)
def answer_that_exits(book: Book) -> None:
    """The answer ends the process, which would take the rest with it."""
    book.answer(FUNCTION, "def kv_bytes_per_token(config, bytes_per_element):\n    import os\n    os._exit(0)")


@misbehavior(FULL, *LIMITED)
def kills_everything(book: Book) -> None:
    """Sends SIGKILL to every process that it may send it to."""
    book.bomb("import os\ntry:\n    os.kill(-1, 9)\nexcept OSError:\n    pass\nos.kill(os.getpid(), 9)")


@misbehavior(FULL, "crashed", words="ended Python")
def segmentation_fault(book: Book) -> None:
    """Reads address 0."""
    book.own("import ctypes\nctypes.string_at(0)")


@misbehavior(FULL, *LIMITED)
def daemon(book: Book) -> None:
    """Leaves a process behind that has its own session and no parent."""
    book.bomb(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(3600)\n"
        "    os._exit(0)"
    )


@misbehavior(FULL)
def thread_that_stays(book: Book) -> None:
    """A thread that never ends, which Python would wait for."""
    book.own("import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()")


@misbehavior(FULL, *LIMITED)
def closes_every_file(book: Book) -> None:
    """Closes the descriptors of whatever runs it."""
    book.own("import os\nos.closerange(0, 1000)")


@misbehavior(FULL)
def noise_on_stderr(book: Book) -> None:
    """Warnings, logging and a progress bar, when the cell runs and at every call: stock nbgrader gives 0."""
    noise = "import logging, sys, warnings\nwarnings.warn('old')\nlogging.error('bad')\nprint('50%', file=sys.stderr)"
    book.own(noise)
    source = book.cell(FUNCTION)["source"]
    book.answer(FUNCTION, source.replace("    elements_per_layer", "    print('!')\n    elements_per_layer", 1))


@misbehavior(FULL)
def live_javascript(book: Book) -> None:
    """Outputs and names that would run in the instructor's browser."""
    book.own(
        "from IPython.display import HTML, Javascript, display\nprint('<script>alert(1)</script>')\n"
        "display(HTML('<img src=x onerror=alert(1)><script>alert(2)</script>'), Javascript('alert(3)'))\n"
        "raise ValueError('<script>alert(4)</script>')"
    )
    book.answer(CLASS, book.cell(CLASS)["source"] + "\n\nX = '</pre><script>alert(5)</script>'")


@misbehavior(NO_FUNCTION)
def observations_without_end(book: Book) -> None:
    """The answer returns more than anybody will look at."""
    book.answer(FUNCTION, "def kv_bytes_per_token(config, bytes_per_element):\n    return list(range(3_000_000))")


@misbehavior(NO_FUNCTION)
def observations_that_contain_themselves(book: Book) -> None:
    """The answer returns a list that is in itself."""
    book.answer(
        FUNCTION, "def kv_bytes_per_token(config, bytes_per_element):\n    x = []\n    x.append(x)\n    return x"
    )
