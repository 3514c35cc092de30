"""The extensions by which the recordings in a folder are found."""

_ENDINGS = (
    ".3gp .aac .ac3 .aif .aiff .amr .ape .au .avi .caf .dts .flac .flv .m2ts .m4a .m4b .m4v .mka "
    ".mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mpga .mts .mxf .oga .ogg .ogv .opus .ra .spx .tta .ts "
    ".vob .voc .w64 .wav .webm .wma .wmv .wv"
)
ENDINGS = frozenset(_ENDINGS.split())
"""Extensions in small letters, with the dot. A file that is given by its own name may have any."""
