"""Running code of people whom nobody has met: isolation around it, and a fresh jail for each exercise.

A *zygote* (zygote.py) runs in the outer isolation (command.py: bubblewrap, or the same calls made by unshare.py). It
has imported torch once and runs no submission itself. For each exercise it forks a child into a *jail* (jail.py): new
namespaces with nothing shared, limits, no privileges. There inside.py runs the student's cells and drives the cases
that the judge sends over a socket. host.py is the side outside. `grader.selftest` tries to break out.
"""
