"""As much of ClickHouse's HTTP interface as the sink uses, with the real engine behind it.

The engine is chDB's libchdb.so, whose path is the argument. It prints its port, and ends
when its standard input does. POST /do takes a statement and answers in CSV; POST / is an
INSERT: parameters that are not of HTTP are settings.
"""

import ctypes as c
import http.server
import os
import re
import sys
import tempfile
import threading
import urllib.parse

lib = c.CDLL(sys.argv[1])
lib.chdb_connect.restype = c.POINTER(c.c_void_p)
lib.chdb_query_n.restype = c.c_void_p
lib.chdb_query_n.argtypes = [c.c_void_p, c.c_char_p, c.c_size_t, c.c_char_p, c.c_size_t]
for f in "chdb_result_buffer", "chdb_result_error":
    getattr(lib, f).restype = c.c_void_p
    getattr(lib, f).argtypes = [c.c_void_p]
lib.chdb_result_length.restype = c.c_size_t
lib.chdb_result_length.argtypes = [c.c_void_p]
lib.chdb_destroy_query_result.argtypes = [c.c_void_p]

home = tempfile.TemporaryDirectory()
args = (c.c_char_p * 2)(b"clickhouse", b"--path=" + os.path.join(home.name, "data").encode())
connection = lib.chdb_connect(2, args)[0]
one = threading.Lock()


def do(sql):
    """Returns what a statement says, and its exception."""
    with one:
        r = lib.chdb_query_n(connection, sql, len(sql), b"CSV", 3)
        error = lib.chdb_result_error(r)
        out = b""
        if error:
            error = c.string_at(error)
        elif n := lib.chdb_result_length(r):
            out = c.string_at(lib.chdb_result_buffer(r), n)
        lib.chdb_destroy_query_result(r)
        return out, error


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/do":
            out, error = do(body)
        else:
            out, error = self.insert(dict(urllib.parse.parse_qsl(url.query)), body)
        self.send_response(500 if error else 200)
        self.send_header("X-ClickHouse-Query-Id", "q")
        if error:
            out = error
            self.send_header("X-ClickHouse-Exception-Code", re.search(rb"Code: (\d+)", error)[1].decode())
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        try:
            self.wfile.write(out)
        except OSError:
            pass  # the client has gone

    def insert(self, query, body):
        into, form = query.pop("query").split(" FORMAT ")
        query.pop("wait_end_of_query")
        settings = ", ".join(k + " = '" + v.replace("'", "\\'") + "'" for k, v in sorted(query.items()))
        with tempfile.NamedTemporaryFile(dir=home.name) as f:
            f.write(body)
            f.flush()
            return do(f"{into} FROM INFILE '{f.name}' SETTINGS {settings} FORMAT {form}".encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
home.cleanup()
os._exit(0)
