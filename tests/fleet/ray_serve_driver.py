"""A local Ray with the adapter on it, in a process of its own: what test_serve_app_ray.py starts.

    python ray_serve_driver.py HTTP_PORT REPLICAS SLOTS

Says "up" when clients are answered. A line "again" deploys it once more, which replaces every
replica; "delete" ends the application, and the end of the input all of it.
"""

import sys
import tempfile

import ray
from ray import serve

from kiku.fleet.serve_app import Scale, application
from kiku.serve.settings import Settings


def main() -> None:
    port, replicas, slots = (int(one) for one in sys.argv[1:4])
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        ray.init(num_cpus=4, include_dashboard=False, _temp_dir=folder, log_to_driver=True)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            settings = Settings(
                model="demo", slots=slots, threads=1, insecure=True,
                session_store=f"{folder}/sessions", session_key="the same for all replicas",
            )  # fmt: skip
            scale = Scale(min_replicas=replicas, max_replicas=replicas, cpus=0.5)
            serve.run(application(settings, scale), name="kiku")
            print("up", flush=True)
            for line in sys.stdin:
                if line.strip() == "again":
                    serve.run(application(settings, scale), name="kiku")
                elif line.strip() == "delete":
                    serve.delete("kiku")
                print("done", flush=True)
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
