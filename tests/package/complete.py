"""complete.py SHELL LINE…: types each line and Tab into an interactive shell, and prints what then stands on the screen."""
import os, pty, re, select, sys, time

SHELLS = {
    "bash": ["bash", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "-i"],
}
BEGIN = {
    "bash": ". /usr/share/bash-completion/bash_completion; bind 'set page-completions off'; bind 'set completion-query-items 0'; PS1='> '",
    "zsh": "autoload -U compinit && compinit -u; zstyle ':completion:*' menu no; LISTMAX=9999; PS1='> '",
    "fish": "function fish_prompt; echo '> '; end; function fish_greeting; end",
}


def read(terminal, first, quiet=1):
    """What is printed: it begins within `first` seconds, and ends when nothing more comes for `quiet` seconds."""
    found, end = b"", time.time() + 60
    while time.time() < end:
        if not select.select([terminal], [], [], quiet if found else first)[0]:
            break
        try:
            found += os.read(terminal, 65536)
        except OSError:
            break
    text = found.decode(errors="replace")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>()][0B]?|\r|\x07|\x1b\][^\x07]*", "", text)


def main():
    shell, lines = sys.argv[1], sys.argv[2:]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="200", LINES="50")
        os.execvp(SHELLS[shell][0], SHELLS[shell])
    read(terminal, 20, 3)
    os.write(terminal, BEGIN[shell].encode() + b"\n")
    read(terminal, 20, 3)
    for line in lines:
        print(f"== {line}")
        os.write(terminal, line.encode())
        shown = read(terminal, 5)
        # the first Tab completes what is certain; bash then shows the list at the third
        for _ in range(3):
            os.write(terminal, b"\t")
            shown += read(terminal, 5)
        print(shown)
        os.write(terminal, b"\x03")
        read(terminal, 5)
    os.kill(pid, 9)


main()
