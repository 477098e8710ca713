"""A tracking server in this process that holds runs, and whose answers a test may delay, lose or replace."""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """The part of MLflow's API that creates, finds, fills and ends runs.

    Attributes:
        runs: The runs by their ids, in the order of their creation, as the API returns them.
        artifacts: The paths of the files that were sent.
        requests: The end of the path of each request, such as ``runs/create``.
        before: Called with the end of the path before each request is worked on. It may return a status and a text to
            answer instead.
        after: Called with the end of the path once the request is done, before it is answered.
    """

    def __init__(self):
        self.runs = {}
        self.requests = []
        self.artifacts = []
        self.before = lambda name: None
        self.after = lambda name: None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                name = path.rpartition("/mlflow/")[2] if "/mlflow/" in path else path.rpartition("/api/2.0/")[2]
                fake.requests.append(name)
                status, text = fake.before(name) or (200, None)
                if text is None:
                    is_json = body.startswith(b"{")
                    text = json.dumps(fake.work(name, json.loads(body) if is_json else {}, self.path))
                fake.after(name)
                data = text.encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client has not waited
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - the names are http.server's

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    def work(self, name, body, path):
        if name == "experiments/get-by-name":
            return {"experiment": {"experiment_id": "1", "name": "study", "lifecycle_stage": "active"}}
        if name == "runs/create":
            # MLflow remembers where the artifacts of a run are, so that no other server may use the same id.
            info = {"run_id": uuid.uuid4().hex, "experiment_id": "1", "status": "RUNNING"}
            info |= {"lifecycle_stage": "active", "artifact_uri": f"mlflow-artifacts:/{len(self.runs)}"}
            run = {"info": info, "data": {"tags": body["tags"], "metrics": [], "params": []}}
            self.runs[info["run_id"]] = run
            return {"run": run}
        if name == "runs/search":
            value = body["filter"].split("'")[1]
            return {"runs": [run for run in self.active() if value in [tag["value"] for tag in run["data"]["tags"]]]}
        run = self.runs.get(body.get("run_id") or path.partition("run_id=")[2].partition("&")[0])
        if name == "runs/log-batch":
            run["data"]["metrics"] += body.get("metrics", [])
            run["data"]["params"] += body.get("params", [])
            run["data"]["tags"] += body.get("tags", [])
        elif "/artifacts/" in path and "mlflow-artifacts" in path:
            self.artifacts.append(path.partition("/artifacts/")[2])
        elif name == "runs/update":
            run["info"]["status"] = body["status"]
        elif name == "runs/delete":
            run["info"]["lifecycle_stage"] = "deleted"
        return {"run": run, "run_info": run["info"]} if run else {}

    def active(self):
        return [run for run in self.runs.values() if run["info"]["lifecycle_stage"] == "active"]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
