"""What a mark is made of: the judge's record, the class file, marks by hand; and what lateness takes off (final.py).

record.py is what grading leaves of each submission. class_file.py says what counts and when it is due. overrides.py
holds decisions by hand, decide.py checks one before it is recorded. similar.py finds equal answers. kept.py reads all
of it from an output folder.
"""
