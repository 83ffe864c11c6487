import sys, tempfile, traceback
from pathlib import Path
from tests.differential import table
from tests.differential.world import *
import faulthandler


def main():
    with Servers((*APPS, "auth")) as servers:
        d = Path(tempfile.mkdtemp())
        with running(d, table.CASES, table.dynamic(servers.urls), servers) as w:
            import time

            for c in table.CASES:
                t = time.time()
                a, b = rough(w.see(c, w.traefik)), rough(w.see(c, w.ours))
                dt = time.time() - t
                keys = [k for k in {**a, **b} if a.get(k, None) != b.get(k, None)]
                if len(sys.argv) > 1 and sys.argv[1] not in c.name:
                    continue
                print(f"## {c.name}" + (f"  SLOW {dt:.2f}" if dt > 0.5 else ""))
                for k in keys:
                    if k in table.EVERYWHERE_KEYS and "-v" not in sys.argv:
                        continue
                    print("   ", k, "| T:", repr(a.get(k))[:110], "| W:", repr(b.get(k))[:110])


main()
