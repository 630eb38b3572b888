"""Running code of people whom nobody has met: walls around it, and one fresh room for each exercise.

A *parent* (parent.py) runs behind the outer walls (command.py: bubblewrap, or the same calls made by walls.py). It has
imported torch once and runs no submission itself. For each exercise it forks a child into a *room* (room.py): new
namespaces with nothing shared, limits, no privileges. There inside.py runs the student's cells and drives the cases
that the judge sends over a socket. host.py is the side outside; selftest.py tries to break each wall.
"""
