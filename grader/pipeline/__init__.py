"""From submissions to marks: intake, sandbox, judge, record, nbgrader's gradebook, tables and feedback.

`grader grade SUBMISSIONS --out OUT` leaves this behind. Everything of a student's is below OUT and nowhere else:

    OUT/grading.json                     options and seed; only its owner may read it
    OUT/taken/<student>/<day>.ipynb      what was handed in, byte for byte
    OUT/results/<student>/<day>.json     the record of a submission (grader/marks): it is graded once this is there, and
                                         this is all that any report needs
    OUT/marks.csv, OUT/times.csv         one line for each student and exercise; how long each submission took
    OUT/grades.csv                       nbgrader's own export of its gradebook
    OUT/feedback/<student>/<day>/        the page for the student
    OUT/source, release, submitted, autograded, gradebook.db, nbgrader_config.py, nbgrader.log
                                         an nbgrader course, to look through with formgrader

One process writes there. Workers get a work item (work.py) and give back a record; they never see the folder.
"""
