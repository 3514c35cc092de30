"""What becomes of each query parameter that Deepgram's clients may send, at its three endpoints:
live, in turns (Flux), recordings. Parameters marked refused here are refused by these tables."""

from kiku.serve.protocols.parameters import Parameter

CONTAINERS = ("ogg-opus", "flac")
"""Encodings that are read as recordings."""

_UNTOLD = "not available with this model"
_NO_REWRITING = "the model's words are not changed"
_BILLING = "only for Deepgram's own use"

_HOTWORDS = (
    Parameter("keyterm", "honoured", "a hotword; may be repeated"),
    Parameter(
        "keywords", "mapped", "a hotword; in word:intensifier, the intensifier multiplies its boost"
    ),
)
_BOTH = (
    Parameter("callback", "refused", "the answer always goes to the client that sent the request"),
    Parameter("callback_method", "ignored", "callbacks are not supported"),
    Parameter("detect_entities", "refused", _UNTOLD),
    Parameter("diarize", "refused", _UNTOLD),
    Parameter("diarize_model", "refused", _UNTOLD),
    Parameter("dictation", "refused", _NO_REWRITING),
    Parameter("extra", "ignored", _BILLING),
    *_HOTWORDS,
    Parameter(
        "language", "honoured", "one of the model's languages, or multi; any other is an error"
    ),
    Parameter("language_hint", "ignored", "the model recognises its languages by itself"),
    Parameter("mip_opt_out", "ignored", "no client's sound is kept"),
    Parameter("model", "honoured", "the model's name or an alias; any other is an error"),
    Parameter("numerals", "refused", _NO_REWRITING),
    Parameter("punctuate", "ignored", "the model decides about punctuation"),
    Parameter("redact", "refused", _NO_REWRITING),
    Parameter("replace", "refused", _NO_REWRITING),
    Parameter("search", "refused", _UNTOLD),
    Parameter("smart_format", "ignored", "the model decides about formatting"),
    Parameter("version", "ignored", "there is only one version"),
)
_SOUND = (
    Parameter("encoding", "honoured", "linear16, linear32, mulaw, alaw, opus; ogg-opus, flac and "
                                      "no encoding mean a recording"),
    Parameter("sample_rate", "honoured", "the rate of raw sound"),
)  # fmt: skip
_FILLERS = Parameter("filler_words", "ignored", _NO_REWRITING)
_TRANSLATE = Parameter("translate", "refused", "the words are in the language that is spoken")

LISTEN_PARAMETERS: tuple[Parameter, ...] = (
    *_BOTH,
    *_SOUND,
    Parameter("channels", "honoured", "all channels are mixed, unless multichannel is true"),
    Parameter("endpointing", "mapped", "the milliseconds choose how soon a pause ends a turn; "
                                       "with false, no ends are sent"),
    _FILLERS,
    Parameter("interim_results", "honoured", "only if true are results sent that are not final"),
    Parameter("multichannel", "honoured", "each channel of raw sound is transcribed separately, "
                                          "in a slot of its own"),
    Parameter("no_delay", "ignored", "no delay is added"),
    # Pipecat always asks for it, and gives up for good if it is refused.
    Parameter("profanity_filter", "ignored", "words are not filtered"),
    Parameter("tag", "ignored", _BILLING),
    _TRANSLATE,
    Parameter("utterance_end_ms", "honoured", "UtteranceEnd is sent after a gap of this length "
                                              "between words"),
    Parameter("vad_events", "honoured", "SpeechStarted is sent when a turn begins"),
)  # fmt: skip

FLUX_PARAMETERS: tuple[Parameter, ...] = (
    *_SOUND,
    Parameter("eager_eot_threshold", "mapped", "EagerEndOfTurn is sent only if it is set; a low "
                                               "value uses the pause head for shorter pauses"),
    Parameter("eot_threshold", "mapped", "probability at which the pause heads end a turn; with 1 "
                                         "they never do"),
    Parameter("eot_timeout_ms", "honoured", "a turn ends this long after its last word"),
    _HOTWORDS[0],
    Parameter("language_hint", "ignored", "the model recognises its languages by itself"),
    Parameter("mip_opt_out", "ignored", "no client's sound is kept"),
    Parameter("model", "honoured", "the model's name or an alias; any other is an error"),
    Parameter("numerals", "refused", _NO_REWRITING),
    Parameter("profanity_filter", "refused", _NO_REWRITING),
    Parameter("redact", "refused", _NO_REWRITING),
    Parameter("tag", "ignored", _BILLING),
)  # fmt: skip

FILE_PARAMETERS: tuple[Parameter, ...] = (
    *_BOTH,
    *_SOUND,
    Parameter("channels", "honoured", "for raw sound; recordings state it themselves"),
    Parameter("custom_intent", "refused", _UNTOLD),
    Parameter("custom_intent_mode", "ignored", "intents are not available"),
    Parameter("custom_topic", "refused", _UNTOLD),
    Parameter("custom_topic_mode", "ignored", "topics are not available"),
    Parameter("detect_language", "ignored", "the model recognises its languages by itself"),
    _FILLERS,
    Parameter("intents", "refused", _UNTOLD),
    Parameter("measurements", "refused", _NO_REWRITING),
    Parameter("multichannel", "honoured", "each channel is transcribed separately"),
    Parameter("profanity_filter", "refused", _NO_REWRITING),
    Parameter("paragraphs", "honoured", "sentences, grouped into paragraphs at pauses"),
    Parameter("sentiment", "refused", _UNTOLD),
    Parameter("summarize", "refused", _UNTOLD),
    Parameter("tag", "honoured", "returned in the metadata"),
    Parameter("topics", "refused", _UNTOLD),
    _TRANSLATE,
    Parameter("utt_split", "honoured", "seconds of silence that separate two utterances"),
    Parameter("utterances", "honoured", "the words, divided at pauses"),
)
