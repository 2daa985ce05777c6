import mitos
sb = mitos.create("python")
assert sb.exec("echo hello").stdout == "hello\n"
sb.files.write("/workspace/plan.txt", "draft")
counter = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.05; done"
sb.exec(f"nohup sh -c '{counter}' >/dev/null 2>&1 &")     # a live process
sb.run_code("x = 41")
a, b = sb.fork(2)
a.exec("echo a > /workspace/a.txt"); b.exec("echo b > /workspace/b.txt")
# neither sees the other's file, both see plan.txt, in both the counter goes on from the fork, in both x + 1 is 42
assert a.exec("cd /workspace; ls").stdout == "a.txt\nplan.txt\n"
assert b.exec("cd /workspace; ls").stdout == "b.txt\nplan.txt\n"
assert a.files.read("/workspace/plan.txt") == b.files.read("/workspace/plan.txt") == "draft"
n = "n() { until grep . /tmp/n; do sleep 0.01; done; }"
goes_on = f"{n}; before=$(n); sleep 0.3; after=$(n); echo from $before to $after; [ $after -gt $before ]"
assert a.exec(goes_on).exit_code == b.exec(goes_on).exit_code == 0
assert a.run_code("x + 1").text == b.run_code("x + 1").text == "42"
assert sb.run_code("import math; math.sqrt(144)").text == "12.0"
sb.terminate()                                            # a and b live on
assert a.exec("echo alive").stdout == b.exec("echo alive").stdout == "alive\n"
assert a.exec(goes_on).exit_code == b.exec(goes_on).exit_code == 0
a.terminate(); b.terminate()
