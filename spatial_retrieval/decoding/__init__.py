"""Bytes from strangers → an upright picture in sRGB.

formats     which files are photographs here, and which Pillow decoder reads them
containers  what a file's wrapping says, read by hand: scans, chunks, directories, orientation
pixels      decoding within limits of work, and what can be kept of a file that is cut short
colour      any mode and any embedded profile → 8-bit sRGB
"""
