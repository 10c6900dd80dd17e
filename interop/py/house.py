"""What every script needs: where the house is, a person, and a way to say what
was seen. The runner reads standard output, one JSON object a line."""
import json
import os
import sys
import urllib.parse
import urllib.request

env = os.environ


def check(text, ok, more=""):
    print(json.dumps({"ok": bool(ok), "text": f"{text}: {more}" if more else text}), flush=True)
    if not ok:
        os._exit(1)


def done():
    print(json.dumps({"done": True}), flush=True)
    sys.exit(0)


def person(address):
    """Open an address in a browser without cookies, sign in, allow, and return
    the parameters with which the browser was sent back."""
    with urllib.request.urlopen(env["PERSON"] + "?url=" + urllib.parse.quote(address, safe=""), timeout=60) as r:
        back = urllib.parse.urlsplit(r.read().decode())
    return dict(urllib.parse.parse_qsl(back.query))
