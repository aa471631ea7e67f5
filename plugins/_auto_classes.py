"""What classes transformers has for a model type, by task. Not a plugin itself: it registers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter import TransformersModel

WITH_PAST = "text-generation-with-past"
# task -> its Auto class. Tasks whose models take several calls for one answer (generation from images or speech)
# are for plugins that know them.
TASKS = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    WITH_PAST: "AutoModelForCausalLM",
    "text-generation": "AutoModelForCausalLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "table-question-answering": "AutoModelForTableQuestionAnswering",
    "document-question-answering": "AutoModelForDocumentQuestionAnswering",
    "visual-question-answering": "AutoModelForVisualQuestionAnswering",
    "next-sentence-prediction": "AutoModelForNextSentencePrediction",
    "image-classification": "AutoModelForImageClassification",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "image-segmentation": "AutoModelForUniversalSegmentation",
    "instance-segmentation": "AutoModelForInstanceSegmentation",
    "object-detection": "AutoModelForObjectDetection",
    "depth-estimation": "AutoModelForDepthEstimation",
    "normal-estimation": "AutoModelForNormalEstimation",
    "pointmap-estimation": "AutoModelForPointmapEstimation",
    "pose-estimation": "AutoModelForPoseEstimation",
    "keypoint-detection": "AutoModelForKeypointDetection",
    "keypoint-matching": "AutoModelForKeypointMatching",
    "image-matting": "AutoModelForImageMatting",
    "text-recognition": "AutoModelForTextRecognition",
    "table-recognition": "AutoModelForTableRecognition",
    "image-to-image": "AutoModelForImageToImage",
    "masked-im": "AutoModelForMaskedImageModeling",
    "zero-shot-image-classification": "AutoModelForZeroShotImageClassification",
    "zero-shot-object-detection": "AutoModelForZeroShotObjectDetection",
    "video-classification": "AutoModelForVideoClassification",
    "time-series-prediction": "AutoModelForTimeSeriesPrediction",
    "audio-classification": "AutoModelForAudioClassification",
    "audio-frame-classification": "AutoModelForAudioFrameClassification",
    "audio-xvector": "AutoModelForAudioXVector",
    "automatic-speech-recognition": "AutoModelForCTC",
    "text2text-generation": "AutoModelForSeq2SeqLM",
}


def named_class(model_type: str, entries: Mapping[str, Any]) -> dict[str, str]:
    """The class that a config.json names, if transformers has it for this type and no Auto class leads to it.

    Encoders alone (T5Gemma), towers with their projection (CLIP). A head's class, which says what it is for, is a
    task's or none's.
    """
    import transformers

    named = list(entries.get("architectures") or ())
    if len(named) != 1 or "For" in str(named[0]):
        return {}
    owner: Any = getattr(getattr(transformers, str(named[0]), None), "config_class", None)
    if getattr(owner, "model_type", None) != model_type:
        return {}
    source = TransformersModel(known_classes(model_type), {}, model_type)
    leads = [source._class(owner(), task, missing_ok=True) for task in source.classes]
    return {} if named[0] in leads else {"feature-extraction": str(named[0])}


def known_classes(model_type: str) -> dict[str, str]:
    """task -> Auto class, for the tasks that transformers has a class of this type for."""
    import transformers

    return {
        task: factory
        for task, factory in TASKS.items()
        if hasattr(transformers, factory)
        and model_type in getattr(transformers, factory)._model_mapping._model_mapping
    }
