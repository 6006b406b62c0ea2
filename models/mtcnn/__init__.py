"""The three-stage MTCNN cascade: find faces and their five landmarks."""
