"""Hides from this package, and from nothing else, what Python has on POSIX alone.

A process that imports this module first runs fcnlab as far as possible as on another system. Other packages keep what
they take from the operating system, since theirs were built for this one.
"""

import builtins
import sys
import types

MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
NAMES = {
    "os": (
        *("O_CLOEXEC", "O_DIRECTORY", "O_DSYNC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "WNOHANG"),
        *(
            "chown",
            "chroot",
            "confstr",
            "ctermid",
            "fchdir",
            "fchmod",
            "fchown",
            "fork",
            "forkpty",
            "getegid",
            "geteuid",
        ),
        *("geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getsid", "getuid", "getxattr", "kill"),
        "killpg",
        *("lchown", "lockf", "major", "makedev", "memfd_create", "minor", "mkfifo", "mknod", "nice", "openpty"),
        *(
            "posix_fadvise",
            "posix_fallocate",
            "posix_spawn",
            "pread",
            "preadv",
            "pwrite",
            "pwritev",
            "register_at_fork",
        ),
        *("sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "set_blocking", "setgid", "setpgid"),
        *("setpriority", "setsid", "setuid", "setxattr", "statvfs", "fstatvfs", "sync", "sysconf", "ttyname", "uname"),
        *("wait", "wait3", "wait4", "waitid"),
    ),
    "signal": (
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1"),
        *("SIGUSR2", "SIGWINCH", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK", "alarm", "pause", "pthread_kill"),
        *("pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigtimedwait", "sigwait", "sigwaitinfo"),
    ),
}
"""Names that Windows lacks. `os.kill` is there, but ends a process whatever the signal."""


def hide():
    """Hide them from every module of fcnlab that is imported from now on."""
    stand_ins = {name: _without(name, names) for name, names in NAMES.items()}
    original = builtins.__import__

    def without_posix(name, globals=None, locals=None, fromlist=(), level=0):
        importer = (globals or {}).get("__name__", "")
        if level == 0 and (importer == "__main__" or importer.partition(".")[0] == "fcnlab"):
            if name in MODULES:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)
            if name in stand_ins:
                return stand_ins[name]
        return original(name, globals, locals, fromlist, level)

    builtins.__import__ = without_posix


def _without(name, hidden):
    module = sys.modules[name] if name in sys.modules else __import__(name)
    stand_in = types.ModuleType(name)
    stand_in.__dict__.update({key: value for key, value in vars(module).items() if key not in hidden})
    if name == "os":
        stand_in.name = "nt"
    return stand_in
