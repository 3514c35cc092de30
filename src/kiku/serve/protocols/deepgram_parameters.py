"""What becomes of each query parameter that Deepgram's clients may send, at its three endpoints:
live, in turns (Flux), recordings. Parameters marked refused here are refused by these tables."""

from kiku.serve.protocols.parameters import Parameter

CONTAINERS = ("ogg-opus", "flac")
"""Encodings that are read as recordings."""

_UNTOLD = "not told by this model"
_NO_REWRITING = "the words are given as they are heard"
_BILLING = "for Deepgram's own use"

_HOTWORDS = (
    Parameter("keyterm", "honoured", "a hotword; may be repeated"),
    Parameter("keywords", "mapped", "a hotword; word:intensifier multiplies its boost"),
)
_BOTH = (
    Parameter("callback", "refused", "the answer is given to who asks"),
    Parameter("callback_method", "ignored", "there is no callback"),
    Parameter("detect_entities", "refused", _UNTOLD),
    Parameter("diarize", "refused", _UNTOLD),
    Parameter("diarize_model", "refused", _UNTOLD),
    Parameter("dictation", "refused", _NO_REWRITING),
    Parameter("extra", "ignored", _BILLING),
    *_HOTWORDS,
    Parameter("language", "honoured", "one of the model's, or multi; any other is an error"),
    Parameter("language_hint", "ignored", "the model hears its languages anyway"),
    Parameter("mip_opt_out", "ignored", "nothing is kept of anybody's sound"),
    Parameter("model", "honoured", "the model's name or an alias; any other is an error"),
    Parameter("numerals", "refused", _NO_REWRITING),
    Parameter("punctuate", "ignored", "the model writes as it has learned to"),
    Parameter("redact", "refused", _NO_REWRITING),
    Parameter("replace", "refused", _NO_REWRITING),
    Parameter("search", "refused", _UNTOLD),
    Parameter("smart_format", "ignored", "the model writes as it has learned to"),
    Parameter("version", "ignored", "there is one"),
)
_SOUND = (
    Parameter("encoding", "honoured", "linear16, linear32, mulaw, alaw, opus; ogg-opus, flac and "
              "none at all are read as recordings"),
    Parameter("sample_rate", "honoured", "of what is raw"),
)  # fmt: skip
_FILLERS = Parameter("filler_words", "ignored", _NO_REWRITING)
_TRANSLATE = Parameter("translate", "refused", "the words are given in the language spoken")

LISTEN_PARAMETERS: tuple[Parameter, ...] = (
    *_BOTH,
    *_SOUND,
    Parameter("channels", "honoured", "mixed, unless multichannel is true"),
    Parameter("endpointing", "mapped", "milliseconds choose how soon a pause ends a turn; false "
              "tells no ends"),
    _FILLERS,
    Parameter("interim_results", "honoured", "results that are not final come only if it is true"),
    Parameter("multichannel", "honoured", "each channel of raw sound is heard by itself, in a slot "
              "of its own"),
    Parameter("no_delay", "ignored", "nothing is delayed"),
    # Pipecat always asks for it, and gives up for good if it is refused.
    Parameter("profanity_filter", "ignored", "nothing is filtered"),
    Parameter("tag", "ignored", _BILLING),
    _TRANSLATE,
    Parameter("utterance_end_ms", "honoured", "UtteranceEnd after a gap between words of so long"),
    Parameter("vad_events", "honoured", "SpeechStarted where a turn begins"),
)  # fmt: skip

FLUX_PARAMETERS: tuple[Parameter, ...] = (
    *_SOUND,
    Parameter("eager_eot_threshold", "mapped", "EagerEndOfTurn comes only if it is set; a low one "
              "asks the head of a shorter pause"),
    Parameter("eot_threshold", "mapped", "how sure the pause heads must be; 1 ends no turn by "
              "itself"),
    Parameter("eot_timeout_ms", "honoured", "a turn ends so long after its last word"),
    _HOTWORDS[0],
    Parameter("language_hint", "ignored", "the model hears its languages anyway"),
    Parameter("mip_opt_out", "ignored", "nothing is kept of anybody's sound"),
    Parameter("model", "honoured", "the model's name or an alias; any other is an error"),
    Parameter("numerals", "refused", _NO_REWRITING),
    Parameter("profanity_filter", "refused", _NO_REWRITING),
    Parameter("redact", "refused", _NO_REWRITING),
    Parameter("tag", "ignored", _BILLING),
)  # fmt: skip

FILE_PARAMETERS: tuple[Parameter, ...] = (
    *_BOTH,
    *_SOUND,
    Parameter("channels", "honoured", "of what is raw; a recording knows its own"),
    Parameter("custom_intent", "refused", _UNTOLD),
    Parameter("custom_intent_mode", "ignored", "there are no intents"),
    Parameter("custom_topic", "refused", _UNTOLD),
    Parameter("custom_topic_mode", "ignored", "there are no topics"),
    Parameter("detect_language", "ignored", "the model hears its languages anyway"),
    _FILLERS,
    Parameter("intents", "refused", _UNTOLD),
    Parameter("measurements", "refused", _NO_REWRITING),
    Parameter("multichannel", "honoured", "each channel is heard by itself"),
    Parameter("profanity_filter", "refused", _NO_REWRITING),
    Parameter("paragraphs", "honoured", "sentences, gathered to paragraphs at pauses"),
    Parameter("sentiment", "refused", _UNTOLD),
    Parameter("summarize", "refused", _UNTOLD),
    Parameter("tag", "honoured", "comes back in the metadata"),
    Parameter("topics", "refused", _UNTOLD),
    _TRANSLATE,
    Parameter("utt_split", "honoured", "seconds of silence that part two utterances"),
    Parameter("utterances", "honoured", "the words parted at pauses"),
)
