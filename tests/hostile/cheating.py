"""Code that wants points for nothing. The function's answer is wrong in each, so each deserves the class's 3 points.

What code has been able to read it prints behind STOLEN; the tests look for that word everywhere.
"""

from __future__ import annotations

from hostile.book import CLASS, FUNCTION, NO_FUNCTION, NOTHING, WRONG, Book, Corpus
from tinyllm.paths import project_root

cheating = Corpus()

BODY = "def kv_bytes_per_token(config, bytes_per_element):\n"


def indented(source: str) -> str:
    """A source as the body of a function."""
    return "".join(f"    {line}\n" for line in source.splitlines())


def trick(book: Book, source: str) -> None:
    """An answer that does something at every call, contained, and returns a wrong result."""
    book.answer(
        FUNCTION,
        BODY + "    try:\n" + indented(indented(source)) + "    except Exception:\n        pass\n    return 1\n",
    )


def wrong_with(book: Book, source: str) -> None:
    """A wrong answer below a cell that does something."""
    book.own(source)
    book.answer(FUNCTION, WRONG)


@cheating(NO_FUNCTION)
def skip_execution_tag(book: Book) -> None:
    """nbclient skips cells with this tag, and nbgrader then gives full marks."""
    book.answer(FUNCTION, WRONG)
    for cell in book.cells:
        cell["metadata"]["tags"] = ["skip-execution", "remove_cell"]


@cheating(NOTHING)
def ast_transformer(book: Book) -> None:
    """Every comparison that is compiled from now on is true: in its own class too, which breaks it."""
    wrong_with(
        book,
        "import ast\nclass Always(ast.NodeTransformer):\n"
        "    def visit_Compare(self, node):\n        return ast.Constant(True)\n"
        "    def visit_Assert(self, node):\n        return ast.Pass()\n"
        "get_ipython().ast_transformers.append(Always())",
    )


@cheating(NOTHING)
def input_transformer(book: Book) -> None:
    """Every cell's source is replaced by one that gives full marks: those of its answers too, which are gone."""
    wrong_with(
        book,
        "get_ipython().input_transformers_cleanup.append(lambda lines: ['2.0\\n'])\n"
        "get_ipython().input_transformers_post.append(lambda lines: ['2.0\\n'])",
    )


@cheating(NO_FUNCTION)
def output_formatter(book: Book) -> None:
    """Every value is shown as full marks."""
    wrong_with(
        book,
        "f = get_ipython().display_formatter.formatters['text/plain']\n"
        "for kind in (int, float, bool, str, object):\n    f.for_type(kind, lambda value, p, cycle: p.text('2.0'))\n"
        "get_ipython().display_formatter.format = lambda *a, **k: ({'text/plain': '2.0'}, {})",
    )


@cheating(NO_FUNCTION)
def display_hook(book: Book) -> None:
    """What ends a cell is replaced: results, events, errors."""
    wrong_with(
        book,
        "import sys\nshell = get_ipython()\nsys.displayhook = lambda value: None\n"
        "shell.events.register('post_run_cell', lambda result: setattr(result, 'result', 2.0))\n"
        "shell.set_custom_exc((Exception,), lambda *a: None)",
    )


@cheating(NO_FUNCTION)
def always_equal_object(book: Book) -> None:
    """What is returned is equal to everything."""
    source = "class Same:\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 0\n    __int__ = lambda s: 26\n"
    source += "    __ne__ = __lt__ = __gt__ = lambda s, o: False\n    __bool__ = lambda s: True\n"
    book.answer(FUNCTION, source + "\n" + BODY + "    return Same()\n")


@cheating(NO_FUNCTION)
def always_equal_number(book: Book) -> None:
    """The same, and a real subclass of int."""
    source = "class Same(int):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
    book.answer(FUNCTION, source + "    __hash__ = lambda s: 0\n\n" + BODY + "    return Same(1)\n")


@cheating(NO_FUNCTION)
def lying_metaclass(book: Book) -> None:
    """The class of what is returned says that it is int, whoever asks."""
    source = "class Meta(type):\n    __instancecheck__ = lambda c, o: True\n    __eq__ = lambda c, o: True\n"
    source += "    __hash__ = lambda c: hash(int)\n    mro = lambda c: [c, int, object]\n"
    source += "class Same(metaclass=Meta):\n    __class__ = int\n    __eq__ = lambda s, o: True\n"
    book.answer(FUNCTION, source + "\n" + BODY + "    return Same()\n")


@cheating(NO_FUNCTION)
def reference_imported(book: Book) -> None:
    """The answer is an import of the course's own."""
    book.answer(FUNCTION, "from tinyllm.kv_cache.sizing import kv_bytes_per_token")


@cheating(NO_FUNCTION)
def reference_called(book: Book) -> None:
    """The answer calls the course's own."""
    book.answer(
        FUNCTION,
        BODY + "    from tinyllm.kv_cache import sizing\n    return sizing.kv_bytes_per_token("
        "config, bytes_per_element)\n",
    )


@cheating(NO_FUNCTION)
def reference_read_from_disk(book: Book) -> None:
    """The source of the course's own is read from every place where it may be, and run."""
    places = [str(project_root()), "/course", "/builds"]
    trick(
        book,
        "import glob, sys\n"
        f"for place in [*sys.path, *{places!r}]:\n"
        "    for end in ('tinyllm/kv_cache/sizing.py', '*/tinyllm/kv_cache/sizing.py', 'solutions/*/*/kv*.py'):\n"
        "        for path in glob.glob(f'{place}/{end}'):\n"
        "            scope = {'__name__': 'x'}\n            exec(open(path).read(), scope)\n"
        "            return scope['kv_bytes_per_token'](config, bytes_per_element)",
    )


@cheating(NO_FUNCTION)
def reference_in_byte_code(book: Book) -> None:
    """The compiled course is searched for the function with a body that is no stub."""
    trick(
        book,
        "import glob, marshal, sys, types\n"
        "for place in [*sys.path, '/builds/common', '/builds/BlockAllocator']:\n"
        "    for path in glob.glob(f'{place}/tinyllm/kv_cache/__pycache__/sizing*.pyc'):\n"
        "        code = marshal.loads(open(path, 'rb').read()[16:])\n"
        "        for item in code.co_consts:\n"
        "            if isinstance(item, types.CodeType) and item.co_name == 'kv_bytes_per_token':\n"
        "                return types.FunctionType(item, {})(config, bytes_per_element)",
    )


@cheating(NO_FUNCTION)
def reference_in_memory(book: Book) -> None:
    """Every object of the process is searched for the function or for code that counts bytes."""
    trick(
        book,
        "import gc, types\n"
        "for item in gc.get_objects():\n"
        "    if isinstance(item, types.FunctionType) and item.__name__ in ('kv_bytes_per_token', 'count_bytes'):\n"
        "        if item.__code__.co_filename != kv_bytes_per_token.__code__.co_filename:\n"
        "            return item(config, bytes_per_element)",
    )


@cheating(NOTHING)
def reference_patched(book: Book) -> None:
    """The course's own functions, checks and judge are replaced wherever they are: what drives its class, too."""
    wrong_with(
        book,
        "import sys\nimport tinyllm.kv_cache.sizing as sizing\nsizing.kv_bytes_per_token = lambda *a: 1\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.startswith('grader'):\n"
        "        for key in list(vars(module)):\n"
        "            if key in ('judge', 'count_bytes', 'run', 'run_property', 'judge_report', 'same', 'is_number'):\n"
        "                setattr(module, key, lambda *a, **k: None)",
    )


@cheating(NO_FUNCTION)
def oracle_imported(book: Book) -> None:
    """The check's own way of counting is imported."""
    trick(book, "from grader.checks.day1.kv_bytes_per_token import count_bytes\nreturn count_bytes(vars(config))")


@cheating(NO_FUNCTION)
def properties_reweighted(book: Book) -> None:
    """The properties of the exercise become one that is always right and worth a hundred points."""
    trick(
        book,
        "from grader.framework import Property\nimport gc\n"
        "for item in gc.get_objects():\n"
        "    if isinstance(item, type) and issubclass(item, Property):\n"
        "        item.weight = 100.0\n        item.judge = lambda *a: None\n        item.cases = lambda *a: iter([{}])",
    )


@cheating(NO_FUNCTION)
def package_shadowed(book: Book) -> None:
    """Folders called tinyllm and grader are put where Python looks first."""
    wrong_with(
        book,
        "import os, sys\nfor name in ('tinyllm', 'grader', 'grader/checks'):\n"
        "    os.makedirs(name, exist_ok=True)\n"
        "    open(f'{name}/__init__.py', 'w').write('check = judge = lambda *a, **k: 2.0\\nEXERCISES = ()')\n"
        "sys.path.insert(0, os.getcwd())\n"
        "for name in [n for n in sys.modules if n.startswith('grader.checks')]:\n    del sys.modules[name]",
    )


@cheating(NO_FUNCTION)
def stack_walked(book: Book) -> None:
    """The callers' frames are searched for what is expected, and their variables changed."""
    trick(
        book,
        "import sys\nframe = sys._getframe()\n"
        "while frame:\n"
        "    for name in ('expected', 'want', 'right', 'answer_key', 'solution'):\n"
        "        if name in frame.f_locals:\n            return frame.f_locals[name]\n"
        "    frame = frame.f_back",
    )


@cheating(NO_FUNCTION)
def driver_replaced(book: Book) -> None:
    """What drives the answer is replaced by something that says that all is well."""
    trick(
        book,
        "import grader.running.local as local\n"
        "from grader.running import Ending, Report\n"
        "local.LocalDriver.__call__ = lambda *a: Report(Ending.OBSERVED, {'bytes': True, 'right': True})\n"
        "local.plain = lambda value: {'bytes': float('nan')}",
    )


@cheating(NO_FUNCTION)
def check_replaced(book: Book) -> None:
    """`check` and everything like it is a function that returns full marks."""
    wrong_with(
        book,
        "import builtins, sys\ncheck = check_hidden = lambda *a, **k: 2.0\nbuiltins.check = check\n"
        "import grader\ngrader.check = check\n"
        "class Fake:\n    check_hidden = staticmethod(check)\n    check = staticmethod(check)\n"
        "sys.modules['grader.hidden'] = sys.modules['grader.learner'] = sys.modules['grader.learner.verbs'] = Fake",
    )


@cheating(NO_FUNCTION)
def result_sent_to_the_judge(book: Book) -> None:
    """Every socket of the process gets a message that says: right, full points."""
    trick(
        book,
        "import json, os, socket, struct\n"
        "result = {'exercise': 'kv_bytes_per_token', 'seed': None, 'diagnoses': [], 'properties': [\n"
        "    {'sentence': 'x', 'weight': 2.0, 'outcome': 'right'}]}\n"
        "for message in ({'result': result}, {'ready': True}, {'report': {'ending': 'right', 'points': 2.0}}):\n"
        "    data = json.dumps(message).encode()\n"
        "    for number in range(3, 64):\n"
        "        try:\n            os.write(number, struct.pack('>I', len(data)) + data)\n"
        "        except OSError:\n            pass",
    )


@cheating(NO_FUNCTION)
def reports_forged(book: Book) -> None:
    """Reports in the judge's own words, with observations that might be taken for right ones."""
    trick(
        book,
        "import json, os, struct\n"
        "for bytes_ in (True, None, 'NaN', {'__tensor__': 'float32', 'shape': [2 ** 39], 'stride': [0], 'data': ''}):\n"
        "    report = {'ending': 'observed', 'observations': {'bytes': bytes_}, 'changed': [], 'printed': ''}\n"
        "    data = json.dumps({'report': report}).encode()\n"
        "    for number in range(3, 64):\n"
        "        try:\n            os.write(number, struct.pack('>I', len(data)) + data)\n"
        "        except OSError:\n            pass",
    )


@cheating(NO_FUNCTION)
def judge_flooded(book: Book) -> None:
    """The judge is told that four gigabytes are coming."""
    trick(
        book,
        "import os\nfor number in range(3, 64):\n    try:\n        os.write(number, b'\\xff' * 65536)\n"
        "    except OSError:\n        pass",
    )


@cheating(NO_FUNCTION)
def answers_from_earlier_inputs(book: Book) -> None:
    """The inputs of earlier runs are kept in every place that may last, and answers looked up there."""
    trick(
        book,
        "import json, os\nkey = repr((config, bytes_per_element))\n"
        "for place in ('/tmp', '/dev/shm', '/var/tmp', os.path.expanduser('~')):\n"
        "    path = os.path.join(place, 'seen.json')\n"
        "    if os.path.exists(path):\n        seen = json.load(open(path))\n"
        "        if seen and seen[0] != os.getpid():\n            print('STOLEN', seen)\n"
        "        if key in seen:\n            return seen[key]\n"
        "    json.dump([key], open(path, 'w'))",
    )


@cheating(NO_FUNCTION)
def inputs_in_its_error(book: Book) -> None:
    """The hidden inputs are put into an error's message, to be read in the feedback."""
    text = BODY + "    raise ValueError(f'layers {config.num_layers + 7654320} heads {config.num_kv_heads}')\n"
    book.answer(FUNCTION, text)


@cheating(NO_FUNCTION)
def right_for_the_published_seed(book: Book) -> None:
    """The answers to the cases that everybody sees at home, by heart."""
    book.answer(
        FUNCTION,
        BODY + "    known = {(1, 1, 4, 2): 16, (3, 1, 4, 2): 48, (2, 3, 5, 2): 120, (1, 1, 4, 4): 32,\n"
        "             (1, 1, 4, 1): 8, (2, 2, 8, 2): 0}\n"
        "    return known.get((config.num_layers, config.num_kv_heads, config.head_dim, bytes_per_element), 0)\n",
    )


def reader(paths: list[str]) -> str:
    """Code that reads every file below some folders, and says so."""
    return (
        "import os\n"
        f"for place in {paths!r}:\n"
        "    if os.path.isfile(place):\n        print('STOLEN', place, open(place, 'rb').read(50))\n"
        "    for folder, _, files in os.walk(place):\n"
        "        for name in files[:50]:\n"
        "            try:\n                print('STOLEN', folder, name, open(f'{folder}/{name}', 'rb').read(50))\n"
        "            except OSError:\n                pass\n"
    )


@cheating(NO_FUNCTION)
def gradebook_read(book: Book) -> None:
    """The gradebook, the releases and the instructor's notebook are read."""
    out = book.places.out
    wrong_with(book, reader([str(out / "gradebook.db"), str(out / "source"), str(out)]))


@cheating(NO_FUNCTION)
def gradebook_trigger(book: Book) -> None:
    """A trigger in the gradebook gives everybody a hundred points."""
    wrong_with(
        book,
        f"import sqlite3\ndb = sqlite3.connect({str(book.places.out / 'gradebook.db')!r})\n"
        "db.execute('CREATE TRIGGER rich AFTER UPDATE ON grade BEGIN UPDATE grade SET auto_score = 100; END')\n"
        "db.commit()\nprint('STOLEN gradebook')",
    )


@cheating(NO_FUNCTION)
def seed_looked_for(book: Book) -> None:
    """The secret seed is looked for in files, environments and command lines."""
    wrong_with(
        book,
        "import glob, os\n"
        f"for path in [{str(book.places.out / 'grading.json')!r}, {str(book.places.out / 'gradebook.db')!r}]:\n"
        "    try:\n        print('STOLEN', open(path).read())\n    except OSError:\n        pass\n"
        "texts = [str(dict(os.environ))]\n"
        "for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try:\n        texts.append(open(path).read())\n    except OSError:\n        pass\n"
        "print('STOLEN' if any('seed' in text.lower() or '--out' in text for text in texts) else '')",
    )


@cheating(NO_FUNCTION)
def others_work_read(book: Book) -> None:
    """The other students' submissions are read, where they were handed in and where they were copied."""
    out = book.places.out
    wrong_with(book, reader([str(book.places.submissions), str(out / "taken"), str(out / "submitted")]))


@cheating(NO_FUNCTION)
def home_read(book: Book) -> None:
    """The instructor's home, keys and the course's solutions are read."""
    root = project_root()
    places = [
        str(book.places.home),
        str(root / "solutions"),
        str(root / "grader" / "checks"),
        "/root/.ssh",
        "/etc/shadow",
    ]
    wrong_with(book, reader(places))


@cheating(NO_FUNCTION)
def memory_of_others_read(book: Book) -> None:
    """The memory of every process that can be seen is read."""
    wrong_with(
        book,
        "import glob, os\nown = os.readlink('/proc/self')\n"
        "for path in glob.glob('/proc/[0-9]*/mem'):\n"
        "    if path != f'/proc/{own}/mem':\n"
        "        try:\n            open(path, 'rb')\n            print('STOLEN', path)\n"
        "        except OSError:\n            pass",
    )


@cheating(NO_FUNCTION)
def written_outside(book: Book) -> None:
    """Files are written to the class, the output folder, the home and the course, in the hope that one counts."""
    places = [*book.places.forbidden, str(project_root()), "/", "/etc", "/usr/lib", "/course"]
    wrong_with(
        book,
        f"import os\nfor place in {places!r}:\n"
        "    try:\n        os.makedirs(place, exist_ok=True)\n"
        "        open(os.path.join(place, 'hostile-was-here'), 'w').write('x')\n"
        "    except OSError:\n        pass",
    )


@cheating(NO_FUNCTION)
def network(book: Book) -> None:
    """A listener on this machine is told the answers; names are looked up."""
    wrong_with(
        book,
        "import socket\n"
        f"for address in (('127.0.0.1', {book.places.port}), ('localhost', {book.places.port})):\n"
        "    try:\n        with socket.create_connection(address, 1) as connection:\n"
        "            connection.sendall(b'hello')\n            print('STOLEN network')\n"
        "    except OSError:\n        pass\n"
        "try:\n    print('STOLEN', socket.gethostbyname('example.org'))\nexcept OSError:\n    pass",
    )


@cheating(NO_FUNCTION)
def limits_raised(book: Book) -> None:
    """Privileges and limits are asked back."""
    wrong_with(
        book,
        "import ctypes, os, resource\n"
        "for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.chroot('/'), lambda: os.nice(-5),\n"
        "             lambda: resource.setrlimit(resource.RLIMIT_NPROC, (100000, 100000)),\n"
        "             lambda: os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))):\n"
        "    try:\n        call()\n        print('STOLEN rights', call.__code__.co_names)\n"
        "    except (OSError, ValueError):\n        pass\n"
        "if ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, b'') == 0:\n    print('STOLEN mount')",
    )


@cheating(NO_FUNCTION)
def objects_that_run_when_loaded(book: Book) -> None:
    """What is returned would run code where it is unpickled, copied or printed."""
    source = "class Evil:\n    def __reduce__(self):\n        return (__import__('os').system, ('touch /tmp/evil',))\n"
    source += "    __deepcopy__ = lambda s, m: 2\n    __repr__ = lambda s: '<script>alert(1)</script>'\n"
    book.answer(FUNCTION, source + "\n" + BODY + "    return {'bytes': Evil(), Evil(): 1}\n")


@cheating(NOTHING)
def tracer_installed(book: Book) -> None:
    """A trace function changes whatever variable is called observations: those of its class, too."""
    wrong_with(
        book,
        "import sys, threading\n"
        "def trace(frame, event, argument):\n"
        "    if 'observations' in frame.f_locals:\n        frame.f_locals['observations'] = {'bytes': True}\n"
        "    return trace\n"
        "sys.settrace(trace)\nthreading.settrace(trace)\nsys.addaudithook(lambda *a: None)",
    )


@cheating({FUNCTION: 2.0, CLASS: 0.0})
def class_imported(book: Book) -> None:
    """A class that is the course's own under another module's name."""
    book.answer(
        CLASS,
        "import tinyllm.kv_cache.allocator as theirs\nclass BlockAllocator(theirs.BlockAllocator):\n    pass",
    )
