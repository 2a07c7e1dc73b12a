"""complete.py SHELL LINE…: types each line and Tab into an interactive shell, and prints what then stands on the screen."""
import os, pty, re, select, sys, time

SHELLS = {
    "bash": ["bash", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "-i"],
}
BEGIN = {
    "bash": ". /usr/share/bash-completion/bash_completion; bind 'set bell-style none'; bind 'set page-completions off'; bind 'set completion-query-items 0'; PS1='> '",
    "zsh": "autoload -U compinit && compinit -u; setopt no_beep no_list_beep; zstyle ':completion:*' menu no; LISTMAX=9999; PS1='> '",
    "fish": "function fish_prompt; echo '> '; end; function fish_greeting; end",
}


def read(terminal, quiet, limit=60):
    """All that is printed until nothing more comes for so long."""
    found, end = b"", time.time() + limit
    while time.time() < end:
        if not select.select([terminal], [], [], quiet)[0]:
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
    read(terminal, 3)
    os.write(terminal, BEGIN[shell].encode() + b"\n")
    read(terminal, 4)
    for line in lines:
        print(f"== {line}")
        os.write(terminal, line.encode())
        # the first Tab completes what is certain; bash then shows the list at the third
        for _ in range(3):
            os.write(terminal, b"\t")
            print(read(terminal, 2.5))
        os.write(terminal, b"\x03")
        read(terminal, 1)
    os.kill(pid, 9)


main()
