"""Random damage to checkpoint files, with the format in mind.

``mutate`` changes one file in place. What is drawn comes from the generator
that is passed, so the same seed damages the same file in the same way.
"""

import io
import json
import pickletools
import struct
import zipfile
import zlib

CANARY = "fuzz_canary"
"""A file that appears in the working folder where planted code has run."""

NUMBERS = (
    0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**40,
    2**62, 2**63 - 1, 2**63, -(2**31), -(2**63), 10**30,
)  # fmt: skip
TEXTS = (
    "", "a", "../../escape", "/etc/passwd", "x" * 100_000, "\x1b[31mred",
    "two\nlines", "nul\0", "\u202e", "ünï", "1", "float32", "None",
    f"__import__('os').system('touch {CANARY}')",
    f"!apply:os.system ['touch {CANARY}']",
    f"!!python/object/apply:os.system ['touch {CANARY}']",
    f"\nplanted: !apply:os.system ['touch {CANARY}']\n",
    "!ref <backbone>", "${oc.env:HOME}", "{0.__class__}", "%s%n",
    "weight", "encoder.layers.99.fc1.weight", "masked_spec_embed",
    "unispeech", "unispeech-sat", "group", "layer", "raw", "gelu",
)  # fmt: skip
RAW_JSON = (
    "1e400", "-1e400", "NaN", "-0", "9" * 5000, "1" + "0" * 400,
    "[" * 100_000 + "]" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000,
    '"\\ud800"', '{"a": 1, "a": 2}', "[" + "0," * 50_000 + "0]", "\ufeff1",
)  # fmt: skip
"""JSON that ``json.dumps`` would not write."""
MARK = "@raw json@"

DAMAGED = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, EOFError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What a change raises on a file that another one has damaged already."""

NAMES = (
    b"os\nsystem", b"posix\nsystem", b"builtins\neval", b"torch\nload",
    b"builtins\ngetattr", b"builtins\nprint", b"__main__\nPlanted",
    b"collections\nOrderedDict", b"collections\ndefaultdict",
    b"torch._utils\n_rebuild_tensor_v2", b"torch._utils\n_rebuild_parameter",
    b"torch\nFloatStorage", b"torch\nHalfStorage", b"torch\nLongStorage",
    b"torch\nSize", b"torch\nfloat16", b"argparse\nNamespace",
    b"fairseq.data.dictionary\nDictionary", b"omegaconf.dictconfig\nDictConfig",
    b"_codecs\nencode", b"numpy\nndarray", b"pathlib\nPosixPath",
)  # fmt: skip
RUN = f"touch {CANARY}".encode()
SNIPPETS = (
    b"cposix\nsystem\nX" + struct.pack("<I", len(RUN)) + RUN + b"\x85R0",
    b"cbuiltins\neval\nX\x03\0\0\x001+1\x85R0",
    b"(lp99\ng99\na", b"]q\xfe(h\xfeh\xfeh\xfee", b"}q\xfd(h\xfdh\xfdu",
    b"(" * 1000, b"]" * 1000, b")" * 200, b"h\0" * 50, b"2" * 100,
    b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"\x8a\xff" + b"\xff" * 255,
    b"\x95" + b"\xff" * 8, b"\x80\x04", b"\x80\xff", b"N0", b"b", b"R",
    b"\x81", b"Q", b"s", b"u", b"t", b"0", b"1", b".",
)  # fmt: skip


def mutate(path, rng):
    """Damages a file once to three times.

    Arguments
    ---------
    path : pathlib.Path
        The file.
    rng : random.Random
        Decides on everything.
    """
    content = path.read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = _aware(path, content)(content, rng)
    path.write_bytes(content)


def _aware(path, content):
    """How to damage a file of its format; sometimes the bytes alone."""
    if path.suffix == ".json":
        kind = change_json
    elif content[:2] == b"PK":
        kind = change_zip
    elif content[:2] == b"\x80\x02":
        kind = change_pickle
    elif content[8:9] == b"{":
        kind = change_safetensors
    else:
        return change_bytes

    def change(content, rng):
        damage = kind if rng.random() < 0.7 else change_bytes
        try:
            return damage(content, rng)
        except DAMAGED:
            return change_bytes(content, rng)

    return change


def change_bytes(content, rng):
    """Flips, inserts, removes, repeats or swaps bytes, or cuts the file."""
    data = bytearray(content)
    size = len(data)
    # headers and the ends of zip files are a small part of most files
    near = rng.choice((size, size, min(size, 200), min(size, 3000)))
    start = rng.randrange(near + 1)
    if rng.random() < 0.15:
        start = size - start
    length = min(rng.choice((1, 2, 4, 8, 64, 1000)), size - start)
    block = bytes(data[start : start + length])
    what = rng.randrange(9)
    if what <= 1 and size:
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            place = min(rng.randrange(near + 1), size - 1)
            data[place] ^= 1 << rng.randrange(8)
    elif what == 2:
        data[start : start + length] = rng.randbytes(length)
    elif what == 3:
        number = rng.choice(NUMBERS) % 2**64
        packed = struct.pack("<Q", number)[: rng.choice((1, 2, 4, 8))]
        data[start : start + len(packed)] = packed
    elif what == 4:
        del data[start:]
    elif what == 5:
        del data[start : start + length]
    elif what == 6:
        data[start:start] = block * rng.choice((1, 1, 3, 100))
    elif what == 7:
        data[start:start] = rng.randbytes(rng.choice((1, 8, 1000)))
    else:
        other = rng.randrange(size + 1)
        moved = bytes(data[other : other + length])
        data[start : start + length] = moved
        data[other : other + len(moved)] = block[: len(moved)]
    return bytes(data)


def change_json(content, rng):
    """Changes a value, a key, or the shape of a JSON text."""
    root = {"root": json.loads(content)}
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder, key = _json_place(root, rng)
        _change_entry(holder, key, rng)
    text = json.dumps(root["root"], indent=rng.choice((None, 1)))
    while f'"{MARK}"' in text:
        text = text.replace(f'"{MARK}"', rng.choice(RAW_JSON), 1)
    coding = rng.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig"))
    return text.encode(coding, "surrogatepass")


def _json_place(root, rng):
    """A container and a key or index in it."""
    places = []
    pending = [root]
    while pending:
        holder = pending.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                pending.append(holder[key])
    return rng.choice(places[1:] or places)


def _change_entry(holder, key, rng):
    """Replaces, removes, renames or adds one entry."""
    what = rng.randrange(10)
    if what == 0 and "root" not in holder:
        del holder[key]
    elif what == 1 and isinstance(holder, dict) and "root" not in holder:
        holder[rng.choice(TEXTS)] = holder.pop(key)
    elif what == 2 and isinstance(holder, dict) and "root" not in holder:
        holder[rng.choice((*OPTIONS, *TEXTS))] = _json_value(holder[key], rng)
    elif what == 3 and isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice((1, 30, 10_000))
    else:
        holder[key] = _json_value(holder[key], rng)


OPTIONS = (
    "last_state", "mask_rule", "tdnn_lengths", "normalize_eps", "num_labels",
    "adapter_attn_dim", "target_lang", "pos_conv_weight_norm", "output_norm",
    "freeze", "relu", "transformers_version", "problem_type",
    "added_tokens_decoder", "sampling_rate", "quantization_config",
)  # fmt: skip
"""Options that a file may leave out."""


def _json_value(old, rng):
    """Another value, sometimes near the old one."""
    if type(old) in (int, float) and rng.random() < 0.4:
        return rng.choice((-old, old + 1, old - 1, 2 * old, old / 2, 10 * old))
    if isinstance(old, bool) and rng.random() < 0.4:
        return not old
    return rng.choice(
        (
            rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(TEXTS),
            rng.choice(TEXTS), None, True, False, 0.5, -1.5, [], {}, [old],
            {"a": old}, [None], [[[[]]]], {"": {"": {}}}, MARK, MARK,
        )
    )  # fmt: skip


def change_safetensors(content, rng):
    """Changes the header: names, types, shapes, places; or the values."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    if rng.random() < 0.15:
        return content[: 8 + length] + _change_values(data, rng)
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry, other = header[name], header[rng.choice(names)]
    what = rng.randrange(9)
    if what == 0:
        entry["dtype"] = rng.choice(DTYPES)
    elif what == 1 and entry["shape"]:
        place = rng.randrange(len(entry["shape"]))
        entry["shape"][place] = _json_value(entry["shape"][place], rng)
    elif what == 2:
        place = rng.randrange(2)
        old = entry["data_offsets"][place]
        entry["data_offsets"][place] = _json_value(old, rng)
    elif what == 3:
        entry["data_offsets"] = other["data_offsets"]
    elif what == 4:
        header[rng.choice((*TEXTS, *names))] = header.pop(name)
    elif what == 5:
        del header[name]
    elif what == 6:
        entry["shape"] = rng.choice(
            (
                [],
                [0],
                entry["shape"][::-1],
                [*entry["shape"], 1],
                other["shape"],
            )
        )
    elif what == 7 and "__metadata__" in header:
        holder, key = _json_place({"root": header["__metadata__"]}, rng)
        holder[key] = _note(holder[key], rng)
        header["__metadata__"] = holder.get("root", header["__metadata__"])
    else:
        _change_entry(*_json_place({"root": header}, rng), rng)
    text = json.dumps(header).replace(f'"{MARK}"', rng.choice(RAW_JSON))
    packed = text.encode("utf-8", "surrogatepass")
    stated = len(packed)
    if rng.random() < 0.1:
        stated = rng.choice((0, 1, stated - 1, stated + 1, 2**27, 2**63))
    return struct.pack("<Q", stated) + packed + data


DTYPES = ("F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "U16",
          "F4", "C64", "X", "f32", "")  # fmt: skip


def _note(old, rng):
    """A text note, changed as JSON where it is JSON."""
    if isinstance(old, str) and old.startswith("{") and rng.random() < 0.9:
        return change_json(old.encode(), rng).decode("utf-8", "replace")
    return _json_value(old, rng)


def _change_values(data, rng):
    """Writes values that are no numbers, or absurd ones."""
    if len(data) < 4:
        return data
    start = rng.randrange(len(data) // 4) * 4
    value = rng.choice((float("nan"), float("inf"), -float("inf"), 3e38, 1e-45))
    count = rng.choice((1, 1, 8, 1000))
    packed = struct.pack("<f", value) * min(count, (len(data) - start) // 4)
    return data[:start] + packed + data[start + len(packed) :]


def change_zip(content, rng):
    """Rewrites a zip file with one record changed, and right checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(n, archive.read(n)) for n in archive.namelist()]
    programs = [i for i, (n, _) in enumerate(records) if n[-9:] == "/data.pkl"]
    what = rng.randrange(10)
    place = rng.randrange(len(records))
    if what <= 5 and programs:
        place = programs[0]
    name, data = records[place]
    compression = zipfile.ZIP_STORED
    if what <= 5:
        damage = change_pickle if rng.random() < 0.85 else change_bytes
        records[place] = name, damage(data, rng)
    elif what == 6:
        damage = rng.choice((change_bytes, _change_values))
        records[place] = name, damage(data, rng)
    elif what == 7:
        top, _, rest = name.partition("/")
        new = (
            f"{top}/../{rest}", f"/{name}", "x", "", f"other/{rest}",
            f"{top}\\{rest}", name.upper(), f"{top}/{rng.choice(TEXTS)}",
        )  # fmt: skip
        records[place] = rng.choice(new)[:60_000].replace("\0", "0"), data
    elif what == 8:
        change = (records[:place], [(name, b"")], records[place : place + 1])
        records[place : place + 1] = rng.choice(change) * rng.choice((0, 1, 2))
    else:
        compression = zipfile.ZIP_DEFLATED
        bomb = data + b"\0" * rng.choice((0, 10**6, 10**7))
        records[place] = name, bomb
    return _zipped(records, compression)


def _zipped(records, compression):
    """The bytes of a zip file with data aligned as ``torch.save`` does it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in records:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            size = stream.tell() + 30 + len(info.filename.encode())
            padding = -(size + 4) % 64
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            archive.writestr(info, data)
    return stream.getvalue()


def change_pickle(content, rng):
    """Changes one step of a pickle, or of one of several in a row."""
    steps = _steps(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        index = rng.randrange(len(steps))
        steps[index : index + 1] = _other_steps(steps, index, rng)
        if not steps:
            return b""
    return b"".join(step for _, step in steps)


def _steps(content):
    """Name and bytes of each step; what follows the pickles is the last."""
    stream, steps = io.BytesIO(content), []
    try:
        while content[stream.tell() : stream.tell() + 1] == b"\x80":
            found = [(op.name, at) for op, _, at in pickletools.genops(stream)]
            ends = [at for _, at in found[1:]] + [stream.tell()]
            steps += [
                (name, content[at:end]) for (name, at), end in zip(found, ends)
            ]
    except (ValueError, LookupError, OverflowError):
        pass  # tensors may look like a pickle, or it was damaged before
    done = sum(len(step) for _, step in steps)
    return [*steps, ("REST", content[done:])]


def _other_steps(steps, index, rng):
    """What stands in place of one step."""
    name, step = steps[index]
    what = rng.randrange(8)
    if what == 0:
        return []
    if what == 1:
        return [(name, step)] * rng.choice((2, 2, 1000))
    if what == 2:
        return [("SNIPPET", rng.choice(SNIPPETS)), (name, step)]
    if what == 3:
        return [rng.choice(steps), (name, step)][:: rng.choice((1, -1))]
    if what == 4:
        return [rng.choice(steps)]
    if name == "GLOBAL":
        return [(name, b"c" + rng.choice(NAMES) + b"\n")]
    if name in ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
        packed = rng.choice(NUMBERS).to_bytes(16, "little", signed=True)
        return [("LONG1", b"\x8a\x10" + packed)]
    if name == "BINUNICODE":
        text = rng.choice(TEXTS).encode()
        return [(name, b"X" + struct.pack("<I", len(text)) + text)]
    if name in ("BINGET", "BINPUT", "LONG_BINGET", "LONG_BINPUT"):
        return [(name, step[:1] + rng.randbytes(len(step) - 1))]
    return [(name, bytes([rng.choice(CODES)]) + step[1:])]


CODES = [ord(code.code) for code in pickletools.opcodes]
