"""The drawing behind Twin Façades: design → canvas → view.

`design.py` and `styles.py` decide what a house is (a grid of parts under a roofline) and what its
twin is; `pen.py`, `walls.py`, `windows.py`, `ornaments.py`, `doors.py`, `roofline.py` and
`canvas.py` draw it frontally; `levels.py`, `camera.py`, `light.py`, `street.py`, `sprites.py` and
`photo.py` are the pieces of a street photograph, which `scene.py` puts together; `render.py` writes
a landmark to disk, and `worker.py` does so in a process of its own.
"""
