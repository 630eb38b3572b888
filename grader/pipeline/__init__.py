"""From submissions to marks: intake, nbgrader's course folder, the judge's scores, feedback and tables."""
